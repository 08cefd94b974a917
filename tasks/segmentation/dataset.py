"""Segmentation from a folder of images and one of masks with an id per pixel; ADE20K is such a pair."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.tv_tensors import Mask

from densevit.data.checks import ContradictionError, check_samples, class_names
from densevit.data.dataset import DenseDataset
from densevit.data.folders import list_files, listed_files, pair_files, shortened
from densevit.data.readers import image_size, read_image, read_mask
from densevit.data.transforms import build_transforms
from densevit.errors import ConfigError
from densevit.palette import distinct_colours
from densevit.registry import DATASETS
from densevit.structures import SegTarget
from densevit.tasks.segmentation.prediction import SegPrediction

CHECKED_SIZES = 5000  # pairs whose headers are compared before a run
CHECKED_LABELS = 32  # masks decoded before a run
MAX_ID = 2**16 - 1


@DATASETS.register_module()
class SegDataset(DenseDataset):
    """Images and masks of two folders, with all folders below, matched by relative path without suffix.

    Args:
        image_dir: Folder of the images, within ``data_root``.
        mask_dir: Folder of the masks, within ``data_root``.
        classes: Names in the order of the ids.
        transforms: Configs for `build_transforms`, or callables.
        data_root: Folder that both others are in.
        ann_file: List within ``data_root`` of the pairs to take, one a line: a path from both folders on, without
            suffix. All by default.
        palette: One (red, green, blue) per class, for pictures; generated if None.
        ignore_index: Label of pixels that give no loss and no score. Files may hold it too.
        ignore_ids: Further ids, as in the files, that become ``ignore_index``.
        reduce_zero_label: In the files 0 is unlabelled, and class ``i`` is ``i + 1``.
        image_suffix: Ends of the names of images, one or several.
        mask_suffix: End of the names of masks.
        download_help: Added to the error if a folder is missing.

    Raises:
        ConfigError: Arguments contradict each other.
        DataError: A folder is missing or empty, an image has no mask or a mask no image, or a list cannot be followed.
    """

    prediction = SegPrediction

    def __init__(
        self,
        image_dir: str,
        mask_dir: str,
        classes: Sequence[str],
        transforms: Sequence[Mapping[str, Any] | Callable[..., Any]],
        data_root: str = "",
        ann_file: str | None = None,
        palette: Sequence[Sequence[int]] | None = None,
        ignore_index: int = 255,
        ignore_ids: Sequence[int] = (),
        reduce_zero_label: bool = False,
        image_suffix: str | Sequence[str] = (".jpg", ".jpeg", ".png"),
        mask_suffix: str = ".png",
        download_help: str = "",
    ) -> None:
        self.classes = class_names(classes)
        self.palette = distinct_colours(len(classes)) if palette is None else _colours(palette, len(classes))
        self.transforms = build_transforms(transforms)
        self.ignore_index = ignore_index
        self.reduce_zero_label = reduce_zero_label
        self._label, self._unknown = _label_tables(len(classes), ignore_index, ignore_ids, reduce_zero_label)
        image_suffixes = (image_suffix,) if isinstance(image_suffix, str) else tuple(image_suffix)
        image_folder, mask_folder = Path(data_root, image_dir), Path(data_root, mask_dir)
        self.where = f"{image_folder} and {mask_folder}"
        images = list_files(image_folder, image_suffixes, download_help)
        masks = list_files(mask_folder, (mask_suffix,), download_help)
        if ann_file is not None:
            self.where = str(Path(data_root, ann_file))
            images, masks = (listed_files(Path(self.where), files) for files in (images, masks))
        self.pairs = pair_files(images, masks, self.where)

    def __len__(self) -> int:
        return len(self.pairs)

    def path(self, index: int) -> str:
        return self.pairs[index][0]

    def files_of(self, index: int) -> tuple[str, str]:
        return self.pairs[index]

    def read(self, index: int) -> tuple[Tensor, SegTarget, str]:
        image_path, mask_path = self.pairs[index]
        image, mask = read_image(image_path), self.read_labels(mask_path)
        _compare_sizes(image_path, tuple(image.shape[1:]), mask_path, tuple(mask.shape))
        return image, SegTarget(mask), image_path

    def read_labels(self, mask_path: str) -> Mask:
        """Return class indices and ``ignore_index`` ``(H, W)``: uint8 where they fit, else int64.

        Raises:
            DataError: The file cannot be read, or holds ids that are no class.
        """
        ids = read_mask(mask_path).as_subclass(Tensor).numpy()
        if _look_up(self._unknown, ids).any():
            raise ContradictionError(f"{mask_path}: {self._explain(np.unique(ids[_look_up(self._unknown, ids) > 0]))}")
        return Mask(torch.from_numpy(_look_up(self._label, ids)))

    def _explain(self, ids: np.ndarray) -> str:
        count, first = len(self.classes), int(self.reduce_zero_label)
        text = f"ids {shortened([str(i) for i in ids])} found, but {count} classes are {first}..{count - 1 + first}"
        hint = "" if self.reduce_zero_label else "is reduce_zero_label meant to be True? Or "
        return f"{text}; {hint}list in ignore_ids what is unlabelled, or complete the classes"

    def check(self, mode: str) -> None:
        quick = [(self._check_size, CHECKED_SIZES), (self._check_labels, CHECKED_LABELS)]
        check_samples(self, mode, self.where, quick)

    def _check_size(self, index: int) -> None:
        image_path, mask_path = self.pairs[index]
        _compare_sizes(image_path, image_size(image_path), mask_path, image_size(mask_path))

    def _check_labels(self, index: int) -> None:
        self.read_labels(self.pairs[index][1])


ADE20K_HELP = (
    "Download http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip (0.9 GB) and unpack it in "
    "{parent}, or pass --data-root with its place. To try the framework without a download: "
    "densevit make-demo-data segmentation, then densevit train demo/segformer_b0_shapes"
)

_ADE20K_NAMES = (
    "wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door, "
    "table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, "
    "armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, "
    "chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, "
    "case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, "
    "book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, "
    "hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, television receiver, airplane, "
    "dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, "
    "fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, "
    "minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, "
    "screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, "
    "monitor, bulletin board, shower, radiator, glass, clock, flag"
)
ADE20K_CLASSES = tuple(_ADE20K_NAMES.split(", "))


@DATASETS.register_module()
class ADE20KDataset(SegDataset):
    """The 150 classes of scene parsing (https://arxiv.org/abs/1608.05442), as in ADEChallengeData2016.zip.

    Args:
        transforms: Configs for `build_transforms`, or callables.
        data_root: The unpacked archive.
        split: "training" (20210 images) or "validation" (2000).
    """

    classes = ADE20K_CLASSES

    def __init__(
        self,
        transforms: Sequence[Mapping[str, Any] | Callable[..., Any]],
        data_root: str = "data/ade/ADEChallengeData2016",
        split: str = "training",
    ) -> None:
        if split not in ("training", "validation"):
            raise ConfigError(f'the splits of ADE20K are "training" and "validation", not {split!r}')
        super().__init__(
            image_dir=f"images/{split}",
            mask_dir=f"annotations/{split}",
            classes=ADE20K_CLASSES,
            transforms=transforms,
            data_root=data_root,
            reduce_zero_label=True,
            image_suffix=".jpg",
            download_help=ADE20K_HELP.format(parent=Path(data_root).parent),
        )


def _colours(palette: Sequence[Sequence[int]], count: int) -> list[tuple[int, int, int]]:
    if len(palette) != count or any(len(c) != 3 or not all(0 <= x <= 255 for x in c) for c in palette):
        raise ConfigError(f"palette must be {count} colours (red, green, blue) of 0..255, one per class")
    return [(r, g, b) for r, g, b in palette]


def _label_tables(
    count: int, ignore_index: int, ignore_ids: Iterable[int], reduce_zero_label: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return, for every id of a file, its label, and whether (1 or 0) it is unknown."""
    if 0 <= ignore_index < count:
        raise ConfigError(f"ignore_index {ignore_index} is also a class: {count} classes take 0..{count - 1}")
    small = count < 255 and 0 <= ignore_index <= 255
    label = np.full(MAX_ID + 1, ignore_index, np.uint8 if small else np.int64)
    unknown = np.ones(MAX_ID + 1, np.uint8)
    first = int(reduce_zero_label)
    label[first : first + count] = np.arange(count)
    unknown[: first + count] = 0
    ignored = [*ignore_ids, *([ignore_index] if ignore_index >= 0 else [])]
    for i in ignored:
        if not 0 <= i <= MAX_ID:
            raise ConfigError(f"ignore_ids and ignore_index: a mask cannot hold {i}, only 0..{MAX_ID}")
    label[ignored] = ignore_index
    unknown[ignored] = 0
    return label, unknown


def _look_up(table: np.ndarray, ids: np.ndarray) -> np.ndarray:
    if table.dtype == ids.dtype == np.uint8:
        return cv2.LUT(ids, table[:256])  # three times as fast
    return np.take(table, ids)


def _compare_sizes(image_path: str, image: tuple[int, ...], mask_path: str, mask: tuple[int, ...]) -> None:
    if image != mask:
        raise ContradictionError(
            f"{mask_path} is {mask[0]} x {mask[1]}, but {image_path} is {image[0]} x {image[1]} (height x width, "
            "upright by EXIF): make a mask of that size, or remove the pair"
        )
