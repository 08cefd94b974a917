"""Classification from a folder of images per class; ImageNet is such a tree."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densevit.data.checks import check_samples, class_names
from densevit.data.class_folders import ClassFolders, list_folders
from densevit.data.class_prediction import ClassPrediction
from densevit.data.dataset import DenseDataset
from densevit.data.readers import IMAGE_SUFFIXES, image_size, read_image
from densevit.data.transforms import build_transforms
from densevit.errors import DataError
from densevit.palette import distinct_colours
from densevit.registry import DATASETS
from densevit.structures import ClassTarget

CHECKED_HEADERS = 1000  # images whose headers are read before a run


@DATASETS.register_module()
class ImageFolderDataset(DenseDataset):
    """Images in ``<data_root>/<split>/<class>/``, with all folders below.

    Args:
        transforms: Configs for `build_transforms`, or callables.
        data_root: Folder of the splits.
        split: Folder of the split.
        classes: Names of the folders in the order of their indices. By default those of ``class_split``, sorted: all
            splits must have the same.
        class_split: Split whose folders name the classes where ``classes`` does not.
        cache: Keep decoded images in memory. Each worker has its own: use it for small images and few workers.
        download_help: Added to the error if a folder is missing.

    Raises:
        ConfigError: ``classes`` is no sequence of different names.
        DataError: A folder is missing, a class has none or an empty one, or a folder is no class.
    """

    prediction = ClassPrediction

    def __init__(
        self,
        transforms: Sequence[Mapping[str, Any] | Callable[..., Any]],
        data_root: str = "",
        split: str = "train",
        classes: Sequence[str] | None = None,
        class_split: str = "train",
        cache: bool = False,
        download_help: str = "",
    ) -> None:
        self.folder = Path(data_root, split)
        list_folders(self.folder, download_help)
        if classes is None:
            hint = "Its folders name the classes: list them in classes, or set class_split to a split that is there"
            classes = list_folders(Path(data_root, class_split), hint)
        self.classes = class_names(classes)
        self.palette = distinct_colours(len(self.classes))
        self.transforms = build_transforms(transforms)
        self.files = ClassFolders(self.folder, self.classes, IMAGE_SUFFIXES)
        self.cached: dict[str, Tensor] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> str:
        return self.files.path(index)

    def label(self, index: int) -> int:
        """Return the class of an image without reading it."""
        return self.files.label(index)

    def read(self, index: int) -> tuple[Tensor, ClassTarget, str]:
        path = self.files.path(index)
        return self._read_image(path), ClassTarget(torch.tensor(self.files.label(index))), path

    def check(self, mode: str) -> None:
        check_samples(self, mode, str(self.folder), [(self._read_header, CHECKED_HEADERS)])

    def _read_image(self, path: str) -> Tensor:
        if self.cached is None:
            return read_image(path)
        if path not in self.cached:
            self.cached[path] = read_image(path)
        return self.cached[path].clone()  # a transform may write into it

    def _read_header(self, index: int) -> None:
        image_size(self.path(index))


IMAGENET_HELP = (
    "Get ILSVRC2012_img_train.tar (138 GB) and ILSVRC2012_img_val.tar (6.3 GB) at https://image-net.org/download.php "
    "(free account) and unpack them so that {root} holds train/n01440764/*.JPEG ... train/n15075141/*.JPEG and "
    "val/n01440764/*.JPEG ..., 1000 folders each: every archive inside the first in a folder of its own name, and "
    "the validation images, which come in one heap, moved into the folders of their synsets. Or pass --data-root"
)


@DATASETS.register_module()
class ImageNetDataset(ImageFolderDataset):
    """The 1000 classes of ILSVRC 2012 (https://arxiv.org/abs/1409.0575); folders and classes are named by synset.

    Args:
        transforms: Configs for `build_transforms`, or callables.
        data_root: Folder of the splits.
        split: "train" (1,281,167 images) or "val" (50,000).

    Raises:
        DataError: The tree is missing or incomplete.
    """

    def __init__(
        self,
        transforms: Sequence[Mapping[str, Any] | Callable[..., Any]],
        data_root: str = "data/imagenet",
        split: str = "train",
    ) -> None:
        help_text = IMAGENET_HELP.format(root=data_root)
        found = list_folders(Path(data_root, split), help_text)
        if len(found) != 1000:
            raise DataError(f"{Path(data_root, split)} holds {len(found)} folders, but ImageNet has 1000. {help_text}")
        super().__init__(transforms, data_root, split, classes=found)
