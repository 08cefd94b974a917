"""Biases of attention that are learnt for every pair of a cell of the queries and a cell of the keys."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Grid = Sequence[int]


def resize_bias(bias: Tensor, old: tuple[Grid, Grid], new: tuple[Grid, Grid]) -> Tensor:
    """Interpolate ``(heads, queries, keys)`` from one pair of grids ``(H, W)`` to another, bicubically over both."""
    sizes = list(zip((*old[0], *old[1]), (*new[0], *new[1]), strict=True))
    if all(before == after for before, after in sizes):
        return bias
    x = bias.unflatten(2, tuple(old[1])).unflatten(1, tuple(old[0]))
    # Products with the weights of each axis give what interpolation of both grids gives, ten times as fast. Each
    # turns the axis that is second into the last, so that four of them restore the order.
    for before, after in sizes:
        x = torch.tensordot(x, _bicubic(before, after).to(x), ([1], [1]))
    return x.flatten(3).flatten(1, 2)


def _bicubic(before: int, after: int) -> Tensor:
    """Return the weights ``(after, before)`` by which bicubic interpolation mixes the cells of one axis."""
    cells = torch.eye(before)
    return F.interpolate(cells[None, None], (after, before), mode="bicubic", align_corners=False)[0, 0]
