"""Padding of maps to whole windows."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from densevit.layers.shape import same_size


def pad_to_multiple(x: Tensor, multiple: int | Sequence[int], mode: str = "constant") -> Tensor:
    """Pad ``(N, C, *space)`` at the end of each axis until ``multiple``, or the axis' own, divides it.

    By zeros, or with ``mode="replicate"`` by the last cells.
    """
    space = x.shape[2:]
    multiples = [multiple] * len(space) if isinstance(multiple, int) else multiple
    gaps = [-n % m for n, m in zip(space, multiples, strict=True)]
    if same_size(gaps, [0] * len(gaps)):
        return x
    return F.pad(x, [p for gap in reversed(gaps) for p in (0, gap)], mode=mode)
