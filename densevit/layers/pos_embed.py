"""Absolute positions."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from densevit.layers.shape import to_map, to_tokens

_INTERPOLATION = {1: "linear", 2: "bicubic", 3: "trilinear"}


def resize_positions(
    positions: Tensor, old: Sequence[int], new: Sequence[int], prefix: int = 0, mode: str | None = None
) -> Tensor:
    """Interpolate ``(1, prefix + L, C)`` from one grid to another; the first ``prefix`` belong to no cell.

    By default bicubically in two dimensions.
    """
    if tuple(old) == tuple(new):
        return positions
    grid = to_map(positions[:, prefix:], old)
    mode = mode or _INTERPOLATION[len(new)]
    grid = F.interpolate(grid, tuple(new), mode=mode, align_corners=None if mode == "nearest" else False)
    return torch.cat([positions[:, :prefix], to_tokens(grid)], dim=1)


def fit_positions(positions: Tensor, grid: Sequence[int], prefix: int = 0, mode: str | None = None) -> Tensor:
    """Interpolate the positions of a square or cube, as files hold them, to ``grid``; return others as they are."""
    cells, axes = positions.shape[1] - prefix, len(grid)
    side = round(max(cells, 0) ** (1 / axes))
    return resize_positions(positions, (side,) * axes, grid, prefix, mode) if side**axes == cells else positions
