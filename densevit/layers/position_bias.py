"""Biases of attention that are learnt for every pair of a cell of the queries and a cell of the keys."""

from collections.abc import Sequence

import torch
from torch import Tensor

from densevit.layers.shape import same_size

Grid = Sequence[int]


def resize_bias(bias: Tensor, old: tuple[Grid, Grid], new: tuple[Grid, Grid], step: Sequence[float]) -> Tensor:
    """Interpolate ``(heads, queries, keys)`` from one pair of grids to another, bicubically over both.

    Args:
        bias: One value per head, query and key.
        old: Grids of queries and of keys that ``bias`` is for, of two or three axes.
        new: Those of the result.
        step: How many old cells a new one measures along each axis. It is not the ratio of the grids where these have
            cells that are partly padding, which lie beyond the border.
    """
    if same_size(old[0], new[0]) and same_size(old[1], new[1]) and same_size(step, [1] * len(step)):
        return bias
    x = bias.unflatten(2, tuple(old[1])).unflatten(1, tuple(old[0]))
    # Products with the weights of each axis give what interpolation of both grids gives, ten times as fast. Each
    # turns the axis that is second into the last, so that as many as there are axes restore the order.
    for before, after, width in zip((*old[0], *old[1]), (*new[0], *new[1]), (*step, *step), strict=True):
        x = torch.tensordot(x, _bicubic(before, after, width, x.device).to(x.dtype), ([1], [1]))
    axes = len(step)
    return x.flatten(1 + axes).flatten(1, axes)


def _bicubic(before: int, after: int, step: float, device: torch.device) -> Tensor:
    """Return the weights ``(after, before)`` by which the cells of one axis are mixed.

    The kernel is that of `torch.nn.functional.interpolate`, that of Keys with a = -0.75; borders are repeated.
    """
    centres = (torch.arange(after, device=device) + 0.5) * step - 0.5
    cells = centres.floor()[:, None] + torch.arange(-1, 3, device=device)
    d = (centres[:, None] - cells).abs()
    weights = torch.where(d <= 1, (1.25 * d - 2.25) * d**2 + 1, ((3.75 - 0.75 * d) * d - 6) * d + 3)
    return weights.new_zeros(after, before).scatter_add(1, cells.long().clamp(0, before - 1), weights)
