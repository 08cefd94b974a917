# csv_dataset.py
"""Pictures to classify that a CSV file lists: lines of file,label below a heading."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densevit import DATASETS
from densevit.data.checks import check_samples
from densevit.data.class_prediction import ClassPrediction
from densevit.data.dataset import DenseDataset
from densevit.data.readers import image_size, read_image
from densevit.data.transforms import build_transforms
from densevit.errors import DataError
from densevit.palette import distinct_colours
from densevit.structures import ClassTarget


@DATASETS.register_module()
class CsvDataset(DenseDataset):
    """Pictures and their classes.

    Args:
        ann_file: The CSV file, within ``data_root``, with the columns "file" and "label".
        classes: Names in the order of their indices.
        transforms: Configs for `build_transforms`.
        data_root: Folder to which the paths in the file are relative.

    Raises:
        DataError: The file is missing, has other columns, or names a class that there is not.
    """

    prediction = ClassPrediction

    def __init__(
        self,
        ann_file: str,
        classes: Sequence[str],
        transforms: Sequence[Mapping[str, Any] | Callable[..., Any]],
        data_root: str = "",
    ) -> None:
        self.classes = tuple(classes)
        self.palette = distinct_colours(len(classes))
        self.transforms = build_transforms(transforms)
        self.where = Path(data_root, ann_file)
        self.rows: list[tuple[str, int]] = []
        if not self.where.is_file():
            raise DataError(f"no file {self.where}: set ann_file and data_root")
        with self.where.open(newline="") as lines:
            for number, row in enumerate(csv.DictReader(lines), start=2):
                if row.keys() != {"file", "label"} or row["label"] not in self.classes:
                    raise DataError(f"{self.where}, line {number}: {row} is no file and label of {self.classes}")
                self.rows.append((str(Path(data_root, row["file"])), self.classes.index(row["label"])))
        if not self.rows:
            raise DataError(f"{self.where} lists no picture")

    def __len__(self) -> int:
        return len(self.rows)

    def path(self, index: int) -> str:
        """Return the file of a picture: what predictions and messages name it by."""
        return self.rows[index][0]

    def read(self, index: int) -> tuple[Tensor, ClassTarget, str]:
        """Return the picture as decoded, its truth, and its path."""
        path, label = self.rows[index]
        return read_image(path), ClassTarget(torch.tensor(label)), path

    def check(self, mode: str) -> None:
        """Look at headers before a run, with ``mode="all"`` at every pixel."""
        check_samples(self, mode, str(self.where), [(lambda index: image_size(self.path(index)), 1000)])
