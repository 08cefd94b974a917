"""Padding of maps to whole windows."""

from torch import Tensor
from torch.nn import functional as F


def pad_to_multiple(x: Tensor, multiple: int, mode: str = "constant") -> Tensor:
    """Pad ``(N, C, H, W)`` at the bottom and right until ``multiple`` divides the sides.

    By zeros, or with ``mode="replicate"`` by the last row and column.
    """
    bottom, right = (-n % multiple for n in x.shape[2:])
    return F.pad(x, (0, right, 0, bottom), mode=mode) if bottom or right else x
