"""The base of all datasets: what is read, augmented reproducibly, and done about files that cannot be read."""

import dataclasses
import random
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes

from densevit.data.prediction import Prediction
from densevit.data.quarantine import Quarantine
from densevit.data.readers import IMAGE_SUFFIXES, read_image
from densevit.data.resize import ImageSize
from densevit.data.transforms import build_transforms
from densevit.data.worker_notes import WorkerNotes
from densevit.errors import ConfigError, DataError
from densevit.registry import TRANSFORMS, Registry
from densevit.seeding import mix_seed
from densevit.structures import ClassTarget, Meta, Sample, space_of


class SampleKey(NamedTuple):
    """What a sampler asks for: which sample, in which epoch, which of several augmentations of it, and in what size.

    The size is the height and width in pixels of the images of a batch; 0 leaves it to the transforms.
    """

    index: int  # type: ignore[assignment]  # shadows tuple.index, which no one needs
    epoch: int = 0
    repeat: int = 0
    size: int = 0


class DenseDataset(Dataset[Sample | None], ABC):
    """Samples by `SampleKey`. A subclass says how to read one; here it is transformed.

    Attributes:
        classes: Names in the order of their indices.
        palette: One (red, green, blue) per class.
        prediction: Class of what is predicted for a sample, see `densevit.data.prediction`.
        transforms: Takes and returns ``(image, {name of target's field: value})``.
        seed: Seed of the run; with the key it alone decides the augmentation.
        suffixes: Ends of the names of the files of inputs, in lower case.
        predictor: What predicts such files: a subclass of `densevit.predictor.Predictor`; None is that itself.
        pipelines: Its arguments that are lists of transforms, and which registry names those.
        quarantine: Where samples that cannot be read are recorded; None raises their `DataError`.
        notes: Where workers note what they read.
    """

    classes: tuple[str, ...]
    palette: Sequence[tuple[int, int, int]]
    prediction: type[Prediction]
    transforms: v2.Transform
    suffixes: tuple[str, ...] = IMAGE_SUFFIXES
    predictor: type[Any] | None = None
    pipelines: Mapping[str, Registry] = {"transforms": TRANSFORMS}
    seed: int = 0
    quarantine: Quarantine | None = None
    notes: WorkerNotes | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int) -> tuple[Tensor, Any, str]:
        """Return the image as decoded, its target dataclass, and the path of the image.

        Raises:
            DataError: A file cannot be read or contradicts the config.
        """

    @abstractmethod
    def path(self, index: int) -> str:
        """Return the file of the input ``index``."""

    def files_of(self, index: int) -> tuple[str, ...]:
        """Return the files that sample ``index`` is read from, that of the input first, and its mask for instance."""
        return (self.path(index),)

    def check(self, mode: str) -> None:
        """Compare the data with the config before a run: here, with ``mode="all"``, read every sample.

        Args:
            mode: "sample" is quick: headers and a few labels, where a subclass says how; "all" decodes every file.

        Raises:
            DataError: Files are unreadable or contradict the config; all of them are named, up to 20.
        """
        from densevit.data.checks import check_samples  # which imports this module

        check_samples(self, mode, type(self).__name__, [])

    @classmethod
    def reader(cls, options: Mapping[str, Any]) -> Callable[[str | Path], Tensor]:
        """Return what reads an input as a dataset of these options does, without its files."""
        return read_image

    @classmethod
    def preparation(cls, options: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
        """Return what makes of an input as read that of the network, as a dataset of these options does."""
        return build_transforms(options["transforms"])

    @staticmethod
    def picture(image: Tensor) -> np.ndarray:
        """Return an input, as read or transformed, as a picture ``(H, W, 3)``, uint8 RGB."""
        return np.ascontiguousarray(image.permute(1, 2, 0))

    def seen(self, sample: Sample) -> tuple[np.ndarray, Any]:
        """Return a sample as a picture, and its target as the class of predictions draws it there."""
        return self.picture(sample.image), sample.target

    @property
    def metainfo(self) -> dict[str, Any]:
        """What mmengine hands to metrics."""
        return {"classes": list(self.classes), "palette": [list(colour) for colour in self.palette]}

    def __getitem__(self, key: int | SampleKey) -> Sample | None:
        """Return the sample; in its place the next readable one, or None, where a quarantine says so.

        Raises:
            DataError: Memory does not suffice; without a quarantine, also as `read` does.
        """
        key = key if isinstance(key, SampleKey) else SampleKey(key)
        if not 0 <= key.index < len(self):
            raise IndexError(key.index)
        try:
            with private_rng(mix_seed(self.seed, key.epoch, key.index, key.repeat)):
                found = self._load_or_replace(key.index)
                sample = None if found is None else self.transform(*found, key.size)
        except MemoryError as error:  # which says nothing about the file: it is not recorded as bad
            raise DataError(
                f"{self.path(key.index)}: memory does not suffice to read it. Every worker needs as much: lower "
                "num_workers of the dataloader, or take the file out of the dataset"
            ) from error
        if self.notes is not None:
            self.notes.end()
        return sample

    def load(self, index: int) -> tuple[Tensor, Any, str]:
        """Return what is transformed: as `read` does, unless a subclass has it prepared already.

        Raises:
            DataError: A file cannot be read or contradicts the config.
        """
        return self.read(index)

    def _load(self, index: int) -> tuple[Tensor, Any, str]:
        if self.notes is not None:
            self.notes.begin(index)
        return self._with_known_label(self.load(index))

    def read_checked(self, index: int) -> tuple[Tensor, Any, str]:
        """Return what `read` gives.

        Raises:
            DataError: As `read` does, and where the label of a classifier is none of its classes.
        """
        return self._with_known_label(self.read(index))

    def _with_known_label(self, found: tuple[Tensor, Any, str]) -> tuple[Tensor, Any, str]:
        """Return a sample as it is; a loss would find a false label too, but not say in which file."""
        _, target, path = found
        # A label with an axis holds shares of all classes.
        if isinstance(target, ClassTarget) and getattr(target.label, "ndim", 0) == 0:
            label, count = int(target.label), len(self.classes)
            if not 0 <= label < count:
                raise DataError(
                    f"{path}: label {label} is none of the {count} classes, which are numbered 0..{count - 1}: "
                    "correct the label, or complete the classes"
                )
        return found

    def _load_or_replace(self, start: int) -> tuple[Tensor, Any, str] | None:
        if self.quarantine is None:
            return self._load(start)
        bad: list[tuple[int, DataError]] = []
        found = None
        tries = self.quarantine.limit + 1 if self.quarantine.replace else 1
        for index in range(start, start + min(tries, len(self))):
            index %= len(self)
            try:
                found = self._load(index)
                break
            except DataError as error:
                bad.append((index, error))
        for index, reason in bad:
            self.quarantine.record(self.files_of(index), reason, replaced_by=found[2] if found else None)
        if found is None and self.quarantine.replace:
            raise bad[-1][1]  # the only sample there is
        return found

    def transform(self, image: Tensor, target: Any, path: str, size: int) -> Sample:
        """Return the sample that is made of what was loaded, of height and width ``size`` if that is not 0.

        Raises:
            ConfigError: The transforms do not fit the image, or give another size.
        """
        names = [f.name for f in dataclasses.fields(target)] if target is not None else []
        original_size = space_of(image)
        fields = {name: getattr(target, name) for name in names}
        try:
            image, fields = self.transforms(image, {**fields, "size": ImageSize(size)} if size else fields)
        except ValueError as error:
            if not _of_torchvision(error):
                raise
            height, width = original_size[-2:]
            raise ConfigError(
                f"{path} is {height} x {width}, which the transforms refuse: {error} "
                'Put dict(type="Resize", size=...) before a crop that is larger'
            ) from error
        if size and tuple(image.shape[-2:]) != (size, size):
            raise ConfigError(
                f"multi_scale asks for {size} x {size} pixels, but the transforms gave {tuple(image.shape[-2:])}: "
                "use MultiScaleCrop in place of what resizes now"
            )
        if target is not None:
            target = dataclasses.replace(target, **{name: _compact(fields[name]) for name in names})
        return Sample(_compact(image), target, Meta(path, original_size, space_of(image)))


def collate(batch: Sequence[Sample | None]) -> list[Sample]:
    """Return the samples of a batch without those left out as bad; the list may be empty."""
    return [sample for sample in batch if sample is not None]


@contextmanager
def private_rng(seed: int) -> Iterator[None]:
    """Seed torch (CPU), NumPy and Python inside the block; outside of it their states do not change.

    In a worker of a DataLoader they do, where nothing else draws: restoring them takes longer than a crop.
    """
    if get_worker_info() is not None:
        _seed(seed)
        yield
        return
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    _seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def _seed(seed: int) -> None:
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed accelerators too
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _of_torchvision(error: ValueError) -> bool:
    """Say whether a transform of torchvision raised it; of others it may be a defect, with a traceback to show."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals["__name__"]).startswith("torchvision.")


def _compact(value: Any) -> Any:
    """Copy a tensor that may be a view, e.g. a crop: a worker would send all of the memory behind it.

    Boxes become a plain tensor: the size of the image, which they carry along, is in the meta.
    """
    if isinstance(value, BoundingBoxes):
        value = value.as_subclass(Tensor).float()
    return value.clone(memory_format=torch.contiguous_format) if isinstance(value, Tensor) else value
