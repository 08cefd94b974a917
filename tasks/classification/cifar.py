"""CIFAR-10 and CIFAR-100 in the files of their site."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.tv_tensors import Image

from densevit.data.cifar import CLASSES, read_cifar
from densevit.data.class_prediction import ClassPrediction
from densevit.data.dataset import DenseDataset
from densevit.data.transforms import build_transforms
from densevit.errors import ConfigError
from densevit.palette import distinct_colours
from densevit.registry import DATASETS
from densevit.structures import ClassTarget


@DATASETS.register_module()
class CIFARDataset(DenseDataset):
    """60,000 images of 32 x 32 pixels, held in memory (https://www.cs.toronto.edu/~kriz/cifar.html).

    Args:
        transforms: Configs for `build_transforms`, or callables.
        data_root: Folder in which the Python or the binary version was unpacked.
        split: "train" (50,000 images) or "test" (10,000).
        num_classes: 10 or 100, the fine labels.

    Raises:
        ConfigError: There is no such split or number of classes.
        DataError: A file is missing, damaged, unsafe, or holds something else.
    """

    prediction = ClassPrediction

    def __init__(
        self,
        transforms: Sequence[Mapping[str, Any] | Callable[..., Any]],
        data_root: str = "data/cifar",
        split: str = "train",
        num_classes: int = 10,
    ) -> None:
        self.transforms = build_transforms(transforms)
        self.images, self.labels, self.files = read_cifar(data_root, split, num_classes)
        self.classes = CLASSES[num_classes]
        self.palette = distinct_colours(num_classes)

    def __len__(self) -> int:
        return len(self.images)

    def path(self, index: int) -> str:
        """Return ``file#row``: the file and the number of the image in it."""
        rows = len(self.images) // len(self.files)
        return f"{self.files[index // rows]}#{index % rows}"

    def label(self, index: int) -> int:
        """Return the class of an image."""
        return int(self.labels[index])

    def read(self, index: int) -> tuple[Tensor, ClassTarget, str]:
        image = Image(torch.from_numpy(self.images[index].copy()))
        return image, ClassTarget(torch.tensor(self.labels[index])), self.path(index)

    def check(self, mode: str) -> None:
        """Check nothing more: every file was read, and every label looked at, when the dataset was made."""
        if mode not in ("sample", "all"):
            raise ConfigError(f'data are checked by "sample" or "all", not by {mode!r}')
