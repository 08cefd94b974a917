"""Volumes and the classes of their voxels, as a dataset.json lists them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densevit.data.checks import ContradictionError, check_samples
from densevit.data.dataset import DenseDataset
from densevit.data.folders import shortened
from densevit.data.plane_sheet import plane_sheet
from densevit.data.volume import (
    VOLUME_SUFFIXES,
    compare_grids,
    on_grid,
    read_labels,
    read_volume,
    spacing_of,
    volume_header,
)
from densevit.data.volume_cache import VolumeCache
from densevit.errors import ConfigError, DataError
from densevit.palette import distinct_colours
from densevit.registry import DATASETS, VOLUME_TRANSFORMS, Registry
from densevit.structures import Meta, Sample, VolumeTarget, space_of
from densevit.tasks.medical.case_list import of_fold, read_cases, read_classes, read_description
from densevit.tasks.medical.grid import resample_labels
from densevit.tasks.medical.prediction import VolumePrediction
from densevit.tasks.medical.predictor import VolumePredictor

CHECKED_HEADERS, CHECKED_LABELS = 1000, 16  # before a run, evenly spread
DTYPES = {"image": torch.float32, "mask": torch.uint8}


@DATASETS.register_module()
class VolumeDataset(DenseDataset):
    """Volumes of a list in the layout of the Medical Segmentation Decathlon (https://arxiv.org/abs/2106.05735).

    A sample is ``(C, D, H, W)`` float32. Without ``transforms``, for evaluation, it is the whole volume as prepared,
    and its target is on the grid of the file, so that scores do not depend on how it was prepared.

    Args:
        prepare: Configs for `build_volume_transforms`, none of them random.
        transforms: Configs of the random ones that follow in training.
        data_root: Folder of the data.
        ann_file: The list below it, see `read_cases`; paths in it are from its folder on.
        section: Which list of the file.
        fold: Part of that list, see `of_fold`; None is all of it.
        folds: Number of parts, where the list does not say them.
        held_out: The volumes in the fold, to validate on; else the others, to train on.
        classes: Names in the order of their ids; by default as the file says.
        cache: Folder in which prepared volumes are kept, see `VolumeCache`.
        download_help: Added to the error if the list is missing.

    Raises:
        ConfigError: Arguments contradict each other or the list.
        DataError: The list is missing or damaged, or has no labels to train on.
    """

    prediction = VolumePrediction
    suffixes = VOLUME_SUFFIXES
    predictor = VolumePredictor
    pipelines: Mapping[str, Registry] = {"prepare": VOLUME_TRANSFORMS, "transforms": VOLUME_TRANSFORMS}

    def __init__(
        self,
        prepare: Sequence[Mapping[str, Any]],
        transforms: Sequence[Mapping[str, Any]] = (),
        data_root: str = "",
        ann_file: str = "dataset.json",
        section: str = "training",
        fold: int | None = None,
        folds: int = 5,
        held_out: bool = False,
        classes: Sequence[str] | None = None,
        cache: str | None = None,
        download_help: str = "",
    ) -> None:
        self.where = Path(data_root, ann_file)
        description = read_description(self.where, download_help)
        self.classes = read_classes(description, self.where, classes)
        self.palette = distinct_colours(len(self.classes))
        self.cases = read_cases(description, section, self.where)
        if fold is not None:
            self.cases = of_fold(self.cases, fold, folds, held_out)
        elif held_out:
            raise ConfigError("VolumeDataset: held_out wants a fold: say which one, or leave it out")
        self.prepare, self.training = _deterministic(prepare), bool(transforms)
        if self.training:
            from densevit.data.volume_transforms import build_volume_transforms

            self.transforms = build_volume_transforms(transforms)
            if bare := [case.images[0] for case in self.cases if case.label is None]:
                raise DataError(
                    f"{self.where}: {section} gives {bare[0]} no label to train on; give it one or leave it out"
                )
        self.cache = VolumeCache(cache, [prepare, self.training]) if cache is not None else None

    def __len__(self) -> int:
        return len(self.cases)

    def path(self, index: int) -> str:
        return self.cases[index].images[0]

    def files_of(self, index: int) -> tuple[str, ...]:
        case = self.cases[index]
        return case.images if case.label is None else (*case.images, case.label)

    def read(self, index: int) -> tuple[Tensor, VolumeTarget | None, str]:
        """Return a volume and its labels on the grid of the file, and the path of its first channel."""
        self._check_grids(index)
        case = self.cases[index]
        image = read_volume(case.images)
        target = None
        if case.label is not None:
            target = VolumeTarget(self.read_mask(case.label), spacing_of(image.affine))
        return image, target, self.path(index)

    def read_mask(self, path: str) -> Tensor:
        """Return the classes of voxels, ``(D, H, W)`` uint8.

        Raises:
            DataError: The file cannot be read, or holds ids that are no class.
        """
        mask = read_labels(path)[0].as_subclass(Tensor)
        if int(mask.max()) >= len(self.classes):
            wrong = [i for i in mask.unique().tolist() if i >= len(self.classes)]
            raise ContradictionError(
                f"{path}: ids {shortened([str(i) for i in wrong])} found, but the classes are 0.."
                f"{len(self.classes) - 1} ({', '.join(self.classes)}): complete them or mend the labels"
            )
        return mask

    def load(self, index: int) -> tuple[Tensor, Any, str]:
        """Return a prepared volume, what else there is to it by name, and its path."""
        if self.cache is None:
            items = self._prepare(index)
        else:
            items = self.cache.get(self.files_of(index), lambda: self._prepare(index))
        return items.pop("image"), items, self.path(index)

    def _prepare(self, index: int) -> dict[str, Tensor]:
        image: Any
        image, target, _ = self.read(index)
        source = {"source_size": torch.tensor(space_of(image)), "source_affine": image.affine}
        if target is not None and not self.training:
            source["truth"] = target.mask
        items = {"image": image}
        if target is not None and self.training:
            items["mask"] = on_grid(target.mask[None], image.affine)
        return {**_plain(self.prepare(items)), **source}

    def transform(self, image: Any, target: Any, path: str, size: int) -> Sample:
        """Return a crop with its labels in training, else the volume with those of its file."""
        if size:
            raise ConfigError("multi_scale is for images: leave it out of train_dataloader")
        items: dict[str, Any] = {"image": image, **target}
        size_of_file, affine_of_file = items.pop("source_size"), items.pop("source_affine")
        truth, grid, to_input = items.pop("truth", None), affine_of_file, None
        if self.training:
            image.meta["filename_or_obj"] = path  # for messages; a cache does not keep it
            items = _plain(self.transforms(_listed(items)))  # MONAI rotates labels into floats
            truth, grid = items["mask"][0], items["image"].affine
        else:
            to_input = torch.linalg.inv(image.affine) @ affine_of_file
        view = _copied(items["image"])
        truth = None if truth is None else VolumeTarget(_copied(truth), spacing_of(grid))
        return Sample(view, truth, Meta(path, tuple(size_of_file.tolist()), space_of(view), to_input))

    def check(self, mode: str) -> None:
        quick = [(self._check_grids, CHECKED_HEADERS), (self._check_labels, CHECKED_LABELS)]
        check_samples(self, mode, str(self.where), quick)

    def _check_grids(self, index: int) -> None:
        first, *others = self.files_of(index)
        header = volume_header(first)
        for path in others:
            compare_grids(first, header, path, volume_header(path))

    def _check_labels(self, index: int) -> None:
        if (path := self.cases[index].label) is not None:
            self.read_mask(path)

    @classmethod
    def reader(cls, options: Mapping[str, Any]) -> Callable[[str | Path], Tensor]:
        return read_volume

    @classmethod
    def preparation(cls, options: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
        """Return what prepares a volume as read; both are MetaTensors, whose affines tell the grid."""
        prepare = _deterministic(options["prepare"])
        return lambda image: _plain(prepare({"image": image}))["image"]

    @staticmethod
    def picture(image: Tensor) -> np.ndarray:
        """Return slices of a volume, as read or transformed."""
        spacing = spacing_of(image.affine).tolist() if hasattr(image, "affine") else (1.0, 1.0, 1.0)
        return plane_sheet(image, spacing)

    def seen(self, sample: Sample) -> tuple[np.ndarray, VolumeTarget | None]:
        """Return slices of a sample, and its target on the grid of these."""
        target, to_input = sample.target, sample.meta.to_input
        if target is None:
            return self.picture(sample.image), None
        if to_input is not None:
            to_file = torch.linalg.inv(to_input)
            mask = resample_labels(target.mask, to_file, sample.meta.input_size)
            spacing = (target.spacing[:, None] * to_file[:3, :3]).norm(dim=0).float()
            target = VolumeTarget(mask, spacing)
        return plane_sheet(sample.image, target.spacing.tolist()), target


def _deterministic(cfgs: Sequence[Mapping[str, Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    from densevit.data.volume_transforms import build_volume_transforms  # MONAI, which takes seconds to import

    prepare = build_volume_transforms(cfgs)
    if prepare.random:
        raise ConfigError("prepare is done once for each volume: random transforms belong into transforms")
    return prepare


def _plain(items: Mapping[str, Any]) -> dict[str, Any]:
    """Return the image as float32, the mask as uint8, other arrays as they are; without a history of transforms."""
    plain: dict[str, Any] = {}
    for name, item in items.items():
        if name in DTYPES:
            plain[name] = on_grid(item.as_tensor().to(DTYPES[name]), item.affine)
        elif isinstance(item, Tensor | np.ndarray):
            plain[name] = torch.as_tensor(item).as_subclass(Tensor)
        elif isinstance(item, list):  # indices of voxels per class; a cache keeps tensors by name
            plain |= {f"{name}[{i}]": torch.as_tensor(part).as_subclass(Tensor) for i, part in enumerate(item)}
    return plain


def _listed(items: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of lists, of which `_plain` made items, in lists again."""
    listed: dict[str, Any] = {}
    for name, item in items.items():
        stem, bracket, _ = name.partition("[")
        if bracket:
            listed.setdefault(stem, []).append(item)
        else:
            listed[name] = item
    return listed


def _copied(item: Tensor) -> Tensor:
    """Return a plain tensor of its own: a worker would send all of the memory behind a crop."""
    return item.as_subclass(Tensor).clone(memory_format=torch.contiguous_format)
