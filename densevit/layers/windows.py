"""Windows of a grid of tokens, in any number of dimensions."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from densevit.layers.shape import ceil_div, same_size


def to_windows(x: Tensor, grid: Sequence[int], window: Sequence[int]) -> Tensor:
    """Cut tokens ``(N, L, ...)`` on ``grid`` into windows ``(N * windows, cells of a window, ...)``.

    Zeros are appended to axes that no whole number of windows covers.
    """
    axes = len(grid)
    x = x.unflatten(1, tuple(grid))
    gaps = [-n % w for n, w in zip(grid, window, strict=True)]
    if not same_size(gaps, [0] * axes):
        x = F.pad(x, [0, 0] * (x.ndim - 1 - axes) + [p for gap in reversed(gaps) for p in (0, gap)])
    for i, size in enumerate(window):
        x = x.unflatten(1 + 2 * i, (-1, size))
    order = (0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), *range(2 * axes + 1, x.ndim))
    return x.permute(order).flatten(1 + axes, 2 * axes).flatten(0, axes)


def from_windows(x: Tensor, grid: Sequence[int], window: Sequence[int]) -> Tensor:
    """Undo `to_windows`: ``(N * windows, cells of a window, ...)`` to tokens ``(N, L, ...)`` on ``grid``."""
    axes, counts = len(grid), tuple(ceil_div(n, w) for n, w in zip(grid, window, strict=True))
    x = x.unflatten(1, tuple(window)).unflatten(0, (-1, *counts))
    order = (0, *(axis for i in range(axes) for axis in (1 + i, 1 + axes + i)), *range(2 * axes + 1, x.ndim))
    x = x.permute(order)
    for i in range(axes):
        x = x.flatten(1 + i, 2 + i).narrow(1 + i, 0, grid[i])
    return x.flatten(1, axes)
