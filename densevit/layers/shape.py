"""Moves between tokens ``(N, L, C)`` and maps ``(N, C, *grid)``, in any number of dimensions."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


def is_known(condition: bool | torch.SymBool) -> bool:
    """Say whether a condition on sizes holds, in an exported graph for all sizes that it leaves open.

    Asked by ``if``, it would be settled by those that the graph is made at.
    """
    if isinstance(condition, bool):
        return condition
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # slow to import

    return statically_known_true(condition)


def same_size(a: Sequence[float], b: Sequence[float]) -> bool:
    """Say whether two sizes are known to be equal, see `is_known`."""
    return len(a) == len(b) and all(is_known(m == n) for m, n in zip(a, b, strict=True))


def ceil_div(n: int, divisor: int) -> int:
    """Return ``n / divisor`` rounded up; ``-(-n // divisor)`` is something else in ONNX, which rounds to zero."""
    return (n + divisor - 1) // divisor


def to_tokens(x: Tensor) -> Tensor:
    """``(N, C, *grid)`` to ``(N, L, C)``; a view, and contiguous, if the map is channels-last."""
    return x.flatten(2).transpose(1, 2)


def to_map(x: Tensor, grid: Sequence[int]) -> Tensor:
    """``(N, L, C)`` to a channels-last view ``(N, C, *grid)``."""
    # In this order the strides of a batch of one are those by which convolutions recognise channels-last.
    return x.unflatten(1, tuple(grid)).movedim(-1, 1)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve a map with a kernel of size 1 and weight ``(out, in)``; the result is channels-last."""
    return F.linear(x.movedim(1, -1), weight, bias).movedim(-1, 1)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate a map linearly to ``size``, corners of the outer cells aligned (``align_corners=False``)."""
    if same_size(x.shape[2:], size):
        return x
    return F.interpolate(x, tuple(size), mode=_INTERPOLATION[x.ndim - 2], align_corners=False)


def crop(x: Tensor, size: Sequence[int]) -> Tensor:
    """Keep the first ``size`` elements of the trailing axes: undoes `pad_stack`."""
    for axis, n in enumerate(size, start=x.ndim - len(size)):
        x = x.narrow(axis, 0, n)
    return x


def pad_stack(tensors: Sequence[Tensor], size: Sequence[int], value: float = 0) -> Tensor:
    """Pad the trailing axes of each tensor at their end to ``size``, then stack.

    Raises:
        ValueError: A tensor is larger than ``size``.
    """
    padded = []
    for x in tensors:
        gaps = [n - m for n, m in zip(size, x.shape[-len(size) :], strict=True)]
        if min(gaps) < 0:
            raise ValueError(f"a tensor of shape {tuple(x.shape)} cannot be padded to {tuple(size)}")
        padded.append(F.pad(x, [p for gap in reversed(gaps) for p in (0, gap)], value=value))
    return torch.stack(padded)
