"""What a dataset yields and what travels, unchanged, to the metric."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from densevit.errors import InstallationError

try:
    from torchvision.tv_tensors import BoundingBoxes, Image, Mask, Video
except (ImportError, RuntimeError) as error:  # the first import of torchvision, wherever one starts
    raise InstallationError(
        f"torchvision does not match torch {torch.__version__} ({error}). Mend it: pip install -U torch torchvision"
    ) from error


@dataclass(frozen=True, slots=True)
class Meta:
    """Where a sample came from, and the sizes needed to map a prediction back onto it.

    Attributes:
        path: File of the input.
        original_size: ``(*space)`` of the file as it was read.
        input_size: ``(*space)`` of the input after the transforms, before any padding.
        to_input: ``(4, 4)`` float64, which takes indices of voxels of the file to those of the input; None where the
            sizes say it all, and for crops.
    """

    path: str
    original_size: tuple[int, ...]
    input_size: tuple[int, ...]
    to_input: Tensor | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class SegTarget:
    """Ground truth of segmentation: ``mask`` is ``(H, W)``, class indices and the ignored id."""

    mask: Mask


@dataclass(frozen=True, slots=True)
class ClassTarget:
    """Ground truth of classification: int64 ``()``, the index of the class, or ``(K,)`` shares after mixing samples."""

    label: Tensor


@dataclass(frozen=True, slots=True)
class BoxTarget:
    """Ground truth of detection and instance segmentation: n objects of one image.

    Attributes:
        boxes: ``(n, 4)`` float32, x1, y1, x2, y2 in pixels.
        labels: ``(n,)`` int64, indices of classes.
        crowd: ``(n,)`` bool, regions of many objects: neither trained on nor counted.
        area: ``(n,)`` float32, pixels as the file says; the metric sorts objects by it.
        masks: ``(n, H, W)`` uint8, 1 inside; None where only boxes are wanted.
        image_id: int64 ``()``, of the file of annotations.
    """

    boxes: BoundingBoxes | Tensor
    labels: Tensor
    crowd: Tensor
    area: Tensor
    masks: Mask | None
    image_id: Tensor


@dataclass(frozen=True, slots=True)
class VolumeTarget:
    """Ground truth of the segmentation of a volume.

    Attributes:
        mask: ``(D, H, W)`` uint8, indices of classes; in training on the grid of the input, else on that of the file.
        spacing: ``(3,)`` float32, edges of a voxel of that grid in mm.
    """

    mask: Tensor
    spacing: Tensor


@dataclass(frozen=True, slots=True)
class Sample:
    """One input with its truth.

    Attributes:
        image: ``(C, H, W)`` uint8 as decoded, a clip ``(T, C, H, W)``; the preprocessor normalises on the device.
            A volume is ``(C, D, H, W)`` float32.
        target: The dataclass of the task, or None when only predicting.
        meta: Origin and sizes.
    """

    image: Image | Video | Tensor
    target: Any
    meta: Meta


def space_of(image: Tensor) -> tuple[int, ...]:
    """Return ``(H, W)`` of an image as it is in a sample, ``(T, H, W)`` of a clip, ``(D, H, W)`` of a volume."""
    return (image.shape[0], *image.shape[2:]) if isinstance(image, Video) else tuple(image.shape[1:])
