"""Detection and instance segmentation from a folder of images and a file in COCO's format."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat, Mask

from densevit.data.checks import ContradictionError, check_samples, class_names
from densevit.data.dataset import DenseDataset
from densevit.data.missing import missing_path
from densevit.data.readers import image_size, read_image
from densevit.data.transforms import build_transforms
from densevit.errors import ConfigError, DataError
from densevit.palette import distinct_colours
from densevit.registry import DATASETS
from densevit.structures import BoxTarget
from densevit.tasks.detection.coco_file import read_coco
from densevit.tasks.detection.masks import rasterise
from densevit.tasks.detection.prediction import DetPrediction

CHECKED_HEADERS = 5000  # images whose headers are read before a run


@DATASETS.register_module()
class CocoDataset(DenseDataset):
    """Images with objects: boxes, classes and, if asked for, masks.

    Targets have boxes as BoundingBoxes and masks as Mask until the transforms are done. Regions of many objects
    (iscrowd) are among the objects. Annotations that cannot be used are left out and logged.

    Args:
        transforms: Configs for `build_transforms`, or callables.
        ann_file: File of instances in COCO's format (https://cocodataset.org/#format-data), within ``data_root``.
        image_dir: Folder of the images, within ``data_root``.
        data_root: Folder that both others are in.
        classes: Names in the order of their indices. By default those of the file, in the order of their ids.
        masks: Read masks too.
        filter_empty: Leave out images without an object that is no crowd, as is usual in training.
        min_size: Leave out images whose shorter side is less, in pixels.
        download_help: Added to the error if the file or the folder is missing.

    Attributes:
        groups: ``(images,)`` int8, 1 of an image that is wider than high, else 0: batches of one kind are padded less.
        dropped: (annotation id, image id, reason) of the annotations that are left out.

    Raises:
        ConfigError: ``classes`` are not those of the file.
        DataError: The file or the folder is missing, the file is not as it should be, or no image is left.
    """

    prediction = DetPrediction

    def __init__(
        self,
        transforms: Sequence[Mapping[str, Any] | Callable[..., Any]],
        ann_file: str,
        image_dir: str = "",
        data_root: str = "",
        classes: Sequence[str] | None = None,
        masks: bool = False,
        filter_empty: bool = False,
        min_size: int = 0,
        download_help: str = "",
    ) -> None:
        self.folder = Path(data_root, image_dir)
        path = Path(data_root, ann_file)
        for needed, what in ((path, "file"), (self.folder, "folder")):
            if not needed.exists():
                raise missing_path(what, needed, download_help)
        self.transforms = build_transforms(transforms)
        self.file = read_coco(path, masks)
        self.dropped = self.file.dropped
        self.classes, self._label_of = _match_classes(path, self.file.classes, classes)
        self.palette = distinct_colours(len(self.classes))
        usable = np.minimum(self.file.heights, self.file.widths) >= min_size
        if filter_empty:
            usable &= np.diff(np.concatenate([[0], np.cumsum(~self.file.crowd)])[self.file.starts]) > 0
        self.images = np.flatnonzero(usable)
        if not len(self.images):
            raise DataError(
                f"{path}: none of {len(usable)} images is left; "
                f"filter_empty={filter_empty} leaves out those without an object that is no crowd, min_size={min_size} "
                "those whose shorter side is less"
            )
        self.groups = (self.file.widths > self.file.heights)[self.images].astype(np.int8)

    @property
    def metainfo(self) -> dict[str, Any]:
        """Classes, palette, and the id of each class in the file."""
        by_label = dict(zip(self._label_of.tolist(), self.file.category_ids, strict=True))
        return {**super().metainfo, "category_ids": [by_label[label] for label in range(len(by_label))]}

    def __len__(self) -> int:
        return len(self.images)

    def path(self, index: int) -> str:
        return os.path.join(self.folder, os.fsdecode(self.file.names[self.images[index]]))

    def size(self, index: int) -> tuple[int, int]:
        """Return (height, width) of an image as the file says."""
        image = self.images[index]
        return int(self.file.heights[image]), int(self.file.widths[image])

    def read(self, index: int) -> tuple[Tensor, BoxTarget, str]:
        path = self.path(index)
        image = read_image(path)
        self._compare_size(index, (image.shape[1], image.shape[2]))
        return image, self.read_target(index), path

    def read_target(self, index: int) -> BoxTarget:
        """Return the objects of an image without reading it."""
        objects, size = self.file.objects(self.images[index]), self.size(index)
        part = slice(objects.start, objects.stop)
        boxes = torch.from_numpy(self.file.boxes[part].copy())
        return BoxTarget(
            boxes=BoundingBoxes(boxes, format=BoundingBoxFormat.XYXY, canvas_size=size),
            labels=torch.from_numpy(self._label_of[self.file.labels[part]]),
            crowd=torch.from_numpy(self.file.crowd[part].copy()),
            area=torch.from_numpy(self.file.area[part].copy()),
            masks=self._read_masks(objects, *size),
            image_id=torch.tensor(int(self.file.image_ids[self.images[index]])),
        )

    def _read_masks(self, objects: range, height: int, width: int) -> Mask | None:
        if self.file.segmentations is None:
            return None
        masks = np.empty((len(objects), height, width), np.uint8)
        for mask, i in zip(masks, objects, strict=True):
            segmentation = self.file.segmentations[i]
            coded = isinstance(segmentation, bytes)
            mask[:] = rasterise(
                {"size": [height, width], "counts": segmentation} if coded else segmentation, height, width
            )
        return Mask(torch.from_numpy(masks))

    def check(self, mode: str) -> None:
        where = f"{self.folder} and {self.file.path}, whose file_name is the path of an image within that folder"
        check_samples(self, mode, where, [(self._check_header, CHECKED_HEADERS)])

    def _check_header(self, index: int) -> None:
        self._compare_size(index, image_size(self.path(index)))

    def _compare_size(self, index: int, found: tuple[int, int]) -> None:
        if found != self.size(index):
            height, width = self.size(index)
            raise ContradictionError(
                f"{self.path(index)} is {found[0]} x {found[1]}, but {self.file.path} says {height} x {width} "
                "(height x width, upright by EXIF): use the images that were annotated, or correct the file"
            )


COCO_HELP = (
    "Download http://images.cocodataset.org/zips/train2017.zip (18 GB), .../zips/val2017.zip (0.8 GB) and "
    "http://images.cocodataset.org/annotations/annotations_trainval2017.zip (0.24 GB) and unpack all three in {root}, "
    "e.g. `cd {root} && unzip train2017.zip`, so that it holds train2017/*.jpg, val2017/*.jpg and "
    "annotations/instances_train2017.json, instances_val2017.json; or pass --data-root with their place"
)


@DATASETS.register_module()
class Coco2017Dataset(CocoDataset):
    """The 80 classes of COCO (https://arxiv.org/abs/1405.0312) with the split of 2017.

    Args:
        transforms: Configs for `build_transforms`, or callables.
        data_root: Folder of the unpacked archives.
        split: "train" (118287 images) or "val" (5000).
        masks: Read masks too.
        filter_empty: Leave out images without an object that is no crowd.
        min_size: Leave out images whose shorter side is less, in pixels.
    """

    def __init__(
        self,
        transforms: Sequence[Mapping[str, Any] | Callable[..., Any]],
        data_root: str = "data/coco",
        split: str = "train",
        masks: bool = False,
        filter_empty: bool = False,
        min_size: int = 0,
    ) -> None:
        if split not in ("train", "val"):
            raise ConfigError(f'the splits of COCO 2017 with annotations are "train" and "val", not {split!r}')
        super().__init__(
            transforms,
            ann_file=f"annotations/instances_{split}2017.json",
            image_dir=f"{split}2017",
            data_root=data_root,
            masks=masks,
            filter_empty=filter_empty,
            min_size=min_size,
            download_help=COCO_HELP.format(root=data_root),
        )


def _match_classes(
    path: Path, found: tuple[str, ...], wanted: Sequence[str] | None
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the classes, and the label of each category of the file."""
    classes = found if wanted is None else class_names(wanted)
    if set(classes) != set(found):
        raise ConfigError(
            f"classes must be those of {path}, in any order; it has {', '.join(found)}; the config has "
            f"{', '.join(classes)}. Leave classes out to take them from the file"
        )
    return classes, np.array([classes.index(name) for name in found], dtype=np.int64)
