"""Prediction on volumes."""

from dataclasses import replace
from typing import Any

import nibabel
import numpy as np
import torch
from nibabel.spatialimages import SpatialImage
from torch import Tensor

from densevit.data.plane_sheet import labelled_slices, plane_sheet
from densevit.data.volume import read_volume, volume_header
from densevit.errors import DataError
from densevit.inputs import Source
from densevit.predictor import Predictor
from densevit.structures import Meta, Sample, space_of
from densevit.tables import table
from densevit.tasks.medical.prediction import VolumePrediction


class VolumePredictor(Predictor):
    """Predicts a class for each voxel; writes them as NIfTI, and a sheet of slices through what was found."""

    picture_suffix = ".png"

    def accept(self, value: Any, name: str) -> nibabel.Nifti1Image:
        """Return a volume in memory as an image of nibabel; an array has voxels of 1 mm, its axes are RAS."""
        if isinstance(value, SpatialImage):
            image = value if isinstance(value, nibabel.Nifti1Image) else nibabel.Nifti1Image.from_image(value)
        elif isinstance(value, np.ndarray | Tensor):
            array = value.numpy(force=True) if isinstance(value, Tensor) else value
            if array.dtype.kind not in "buif":
                raise DataError(f"{name}: a volume is (D, H, W) real numbers, not {array.dtype}")
            image = nibabel.Nifti1Image(array.astype(np.float32), np.eye(4))
            image.header.set_xyzt_units("mm")
        else:
            raise DataError(f"{name}: a volume is a file, (D, H, W) or an image of nibabel, not {type(value).__name__}")
        try:
            volume_header(image)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        return image

    def complete(self, prediction: VolumePrediction, source: Source) -> VolumePrediction:
        """Return a prediction that is saved on the grid of an image in memory."""
        in_memory = isinstance(source.value, nibabel.Nifti1Image)
        return replace(prediction, like=source.value) if in_memory else prediction

    def draw(self, source: Source, prediction: Any) -> np.ndarray:
        """Return slices through what was found."""
        slices = labelled_slices(prediction.mask.numpy())
        sheet = plane_sheet(read_volume(source.value), volume_header(source.value).spacing, slices)
        return prediction.draw_slices(sheet, self.classes, self.palette, slices)

    def describe(self, source: Source, prediction: Any, alone: bool) -> str:
        """Return the volumes of the classes in ml, as a table, or as a line if it is not alone."""
        rows = [(name, f"{ml:.4g}") for name, ml in prediction.summary(self.classes)["ml"].items()]
        if not rows:
            return f"{source}: background only"
        if alone:
            return table(str(source), ("class", "ml"), rows)
        return f"{source}: {', '.join(f'{name} {ml} ml' for name, ml in rows)}"

    def sample(self, image: Tensor, name: str) -> Sample:
        """Return what was read as the model takes it.

        Raises:
            DataError: The model reads volumes of several files.
        """
        if len(image) != (channels := self.model.backbone.in_channels):
            raise DataError(
                f"{name} has {len(image)} channel, but the model reads {channels}: list the files of each volume in "
                "dataset.json and predict them with densevit test --out"
            )
        view: Any = self.transforms(image)
        to_input = torch.linalg.inv(view.affine.double()) @ image.affine.double()  # type: ignore[attr-defined]
        return Sample(view.as_tensor(), None, Meta(name, space_of(image), space_of(view), to_input))
