"""Sizes that keep the aspect, and resizing of ids and masks."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F


class ImageSize(int):
    """Height and width that transforms are to give an image; they find it among the fields."""


def fitted_size(space: Sequence[int], scale: Sequence[float], ratio: float = 1.0) -> list[int]:
    """Return the largest size of the aspect of ``space`` whose sides fit into ``scale`` times ``ratio``."""
    factor = ratio * min(max(scale) / max(space), min(scale) / min(space))
    return [max(1, int(side * factor + 0.5)) for side in space]


def resize_nearest(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Resize ids ``(H, W)``, or n masks ``(n, H, W)``, without making new ones, aligned with a bilinear resize.

    torchvision's own resize of masks samples up to half a pixel off, as "nearest" of PyTorch does; for uint8 OpenCV
    is four times as fast as "nearest-exact".
    """
    stack = mask.as_subclass(Tensor) if mask.ndim == 3 else mask.as_subclass(Tensor)[None]
    if mask.dtype == torch.uint8:
        resized = np.empty((len(stack), *size), np.uint8)
        for ids, out in zip(stack.numpy(), resized, strict=True):
            cv2.resize(ids, tuple(size)[::-1], dst=out, interpolation=cv2.INTER_NEAREST_EXACT)
        result = torch.from_numpy(resized)
    else:
        result = F.resize_image(stack, size, F.InterpolationMode.NEAREST_EXACT)
    return result if mask.ndim == 3 else result[0]
