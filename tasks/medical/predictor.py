"""Prediction on files of volumes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densevit.data.plane_sheet import labelled_slices, plane_sheet
from densevit.data.volume import volume_header
from densevit.errors import DataError
from densevit.predictor import Predictor
from densevit.structures import Meta, Sample, space_of
from densevit.tables import table


class VolumePredictor(Predictor):
    """Predicts a class for each voxel of a file; writes them as NIfTI, and a sheet of slices through what was found."""

    picture_suffix = ".png"

    def draw(self, path: Path, prediction: Any) -> np.ndarray:
        """Return slices through what was found."""
        slices = labelled_slices(prediction.mask.numpy())
        sheet = plane_sheet(self.read(path), volume_header(path).spacing, slices)
        return prediction.draw_slices(sheet, self.classes, self.palette, slices)

    def describe(self, path: Path, prediction: Any, alone: bool) -> str:
        """Return the volumes of the classes in ml, as a table, or as a line if it is not alone."""
        rows = [(name, f"{ml:.4g}") for name, ml in prediction.summary(self.classes)["ml"].items()]
        if not rows:
            return f"{path}: background only"
        if alone:
            return table(str(path), ("class", "ml"), rows)
        return f"{path}: {', '.join(f'{name} {ml} ml' for name, ml in rows)}"

    def sample(self, image: Tensor, path: Path) -> Sample:
        """Return what was read as the model takes it.

        Raises:
            DataError: The model reads volumes of several files.
        """
        if len(image) != (channels := self.model.backbone.in_channels):
            raise DataError(
                f"{path} has {len(image)} channel, but the model reads {channels}: list the files of each volume in "
                "dataset.json and predict them with tools/test.py --out"
            )
        view: Any = self.transforms(image)
        to_input = torch.linalg.inv(view.affine.double()) @ image.affine.double()  # type: ignore[attr-defined]
        return Sample(view.as_tensor(), None, Meta(str(path), space_of(image), space_of(view), to_input))
