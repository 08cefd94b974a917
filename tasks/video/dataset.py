"""Clips of videos with one class each."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.tv_tensors import Video

from densevit.data.checks import check_samples, class_names
from densevit.data.class_folders import ClassFolders, list_folders
from densevit.data.contact_sheet import contact_sheet
from densevit.data.dataset import DenseDataset
from densevit.data.missing import missing_path
from densevit.data.transforms import build_transforms
from densevit.data.video import VIDEO_SUFFIXES, read_clip, video_info
from densevit.errors import ConfigError, DataError
from densevit.palette import distinct_colours
from densevit.registry import DATASETS, SAMPLINGS
from densevit.structures import ClassTarget
from densevit.tasks.video.clip_list import ClipList, read_class_names
from densevit.tasks.video.prediction import ClipPrediction
from densevit.tasks.video.predictor import ClipPredictor

CHECKED_HEADERS, CHECKED_FILES = 200, 10_000  # before a run, evenly spread
CLASS_FILE = "labels.txt"


@DATASETS.register_module()
class ClipDataset(DenseDataset):
    """Videos that a file lists, as those of Kinetics are, or that lie in folders of their classes.

    A clip is ``(T, 3, H, W)``. Only its frames are decoded, and shrunk as they are.

    Args:
        transforms: Configs for `build_transforms`, or callables; they treat all frames alike.
        sampling: Config of what chooses the frames, see `densevit.data.frame_sampling`.
        data_root: Folder of the data.
        ann_file: List of the split below ``data_root``, see `ClipList`.
        video_dir: Folder below ``data_root`` that the paths in it start from.
        split: In place of ``ann_file``: folder below ``data_root`` with one folder per class.
        classes: Names in the order of their indices. By default, of folders, their names, sorted; else the lines of
            labels.txt in ``data_root``.
        short_side: Pixels to which the shorter side is shrunk in decoding; smaller videos stay as they are.
        download_help: Added to the error if the data are missing.

    Raises:
        ConfigError: Both or none of ``ann_file`` and ``split``, or a wrong sampling.
        DataError: A list or folder is missing, or lists what is no class.
    """

    prediction = ClipPrediction
    suffixes = VIDEO_SUFFIXES
    predictor = ClipPredictor

    def __init__(
        self,
        transforms: Sequence[Mapping[str, Any] | Callable[..., Any]],
        sampling: Mapping[str, Any],
        data_root: str = "",
        ann_file: str | None = None,
        video_dir: str = "videos",
        split: str | None = None,
        classes: Sequence[str] | None = None,
        short_side: int | None = None,
        download_help: str = "",
    ) -> None:
        if (ann_file is None) == (split is None):
            raise ConfigError("ClipDataset takes either ann_file, a list of videos, or split, a folder of classes")
        root = Path(data_root)
        if not root.is_dir():
            raise missing_path("folder", root, download_help)
        self.transforms = build_transforms(transforms)
        self.read_file = self.reader({"sampling": sampling, "short_side": short_side})
        if split is not None:
            self.where = root / split
            self.classes = class_names(classes or list_folders(self.where, download_help))
            self.files: ClassFolders | ClipList = ClassFolders(self.where, self.classes, VIDEO_SUFFIXES)
        else:
            self.where = root / str(ann_file)
            self.classes = class_names(classes or read_class_names(root / CLASS_FILE))
            self.files = ClipList(self.where, root / video_dir, self.classes)
        self.palette = distinct_colours(len(self.classes))

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> str:
        return self.files.path(index)

    def label(self, index: int) -> int:
        """Return the class of a video without reading it."""
        return self.files.label(index)

    def read(self, index: int) -> tuple[Tensor, ClassTarget, str]:
        path = self.path(index)
        return self.read_file(path), ClassTarget(torch.tensor(self.label(index))), path

    def check(self, mode: str) -> None:
        check_samples(self, mode, str(self.where), [(self._find, CHECKED_FILES), (self._read_header, CHECKED_HEADERS)])

    @classmethod
    def reader(cls, options: Mapping[str, Any]) -> Callable[[str | Path], Video]:
        """Return what reads a clip as a dataset of these options does."""
        choose, short_side = SAMPLINGS.build(options["sampling"]), options.get("short_side")
        return partial(read_clip, choose=choose, short_side=short_side)  # workers that are spawned get it pickled

    @staticmethod
    def picture(image: Tensor) -> np.ndarray:
        """Return frames of a clip side by side."""
        return contact_sheet(image)

    def _find(self, index: int) -> None:
        if not Path(self.path(index)).is_file():
            raise DataError(f"{self.path(index)}: no such file")

    def _read_header(self, index: int) -> None:
        video_info(self.path(index))
