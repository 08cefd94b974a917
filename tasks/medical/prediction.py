"""What a model predicts for one volume, and pictures of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from nibabel.nifti1 import Nifti1Image
from torch import Tensor

from densevit.data.plane_sheet import Slices, label_sheet
from densevit.data.prediction import Palette
from densevit.data.prediction_files import file_of, new_file
from densevit.data.volume import read_labels, volume_header, write_labels
from densevit.structures import VolumeTarget
from densevit.tasks.medical.drawing import draw_labels


@dataclass(frozen=True)
class VolumePrediction:
    """The classes of the voxels of a file; class 0 is the background.

    Attributes:
        mask: ``(D, H, W)`` uint8 on the grid of the file, on the CPU.
        like: The file, of several channels the first, or the image in memory: its grid is that of the voxels.
    """

    mask: Tensor
    like: str | Nifti1Image

    def draw(self, image: np.ndarray, classes: Sequence[str], palette: Palette) -> np.ndarray:
        """Return the `plane_sheet` of the volume with its classes, and a legend with their volumes in ml."""
        return self.draw_slices(image, classes, palette)

    def draw_slices(
        self, image: np.ndarray, classes: Sequence[str], palette: Palette, slices: Slices | None = None
    ) -> np.ndarray:
        """Draw as `draw` does, on a `plane_sheet` of given ``slices``."""
        names = [(i, f"{classes[i]}  {ml:.4g} ml") for i, ml in self._volumes(len(classes)).items()]
        return draw_labels(image, label_sheet(self.mask.numpy(), self._spacing(), slices), names, palette)

    @staticmethod
    def draw_truth(image: np.ndarray, target: VolumeTarget, classes: Sequence[str], palette: Palette) -> np.ndarray:
        """Draw the true classes on the `plane_sheet` of a volume, which may have been resized since."""
        sheet = label_sheet(target.mask.as_subclass(Tensor).numpy(), target.spacing.tolist())
        names = [(i, classes[i]) for i in target.mask.unique().tolist() if 0 < i < len(classes)]
        return draw_labels(
            image, cv2.resize(sheet, image.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT), names, palette
        )

    def save(self, stem: Path) -> Path:
        """Write the classes to ``<stem>.nii.gz``, on the grid of the file, and return its path.

        Raises:
            DataError: The file is no longer there to take its grid from.
        """
        path = new_file(stem, ".nii.gz")
        write_labels(self.mask, self.like, path)
        return path

    @classmethod
    def load(cls, stem: Path) -> "VolumePrediction":
        """Read the classes that `save` wrote.

        Raises:
            DataError: The file is missing or damaged.
        """
        path = file_of(stem, ".nii.gz")
        return cls(read_labels(path)[0].as_subclass(Tensor), str(path))

    def summary(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return, under "ml", the volume of each class that occurs, in millilitres, without the background."""
        return {"ml": {classes[i]: round(ml, 6) for i, ml in self._volumes(len(classes)).items()}}

    def _volumes(self, num_classes: int) -> dict[int, float]:
        """Return millilitres by class."""
        counts = torch.bincount(self.mask.flatten(), minlength=num_classes).tolist()
        voxel = float(np.prod(self._spacing())) / 1000
        return {i: counts[i] * voxel for i in range(1, num_classes) if counts[i]}

    def _spacing(self) -> tuple[float, float, float]:
        return volume_header(self.like).spacing
