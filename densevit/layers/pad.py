"""Padding of maps to whole windows."""

from torch import Tensor
from torch.nn import functional as F


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad ``(N, C, H, W)`` by zeros at the bottom and right until ``multiple`` divides its sides."""
    bottom, right = (-n % multiple for n in x.shape[2:])
    return F.pad(x, (0, right, 0, bottom)) if bottom or right else x
