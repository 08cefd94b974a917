"""Absolute positions."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from densevit.layers.shape import same_size, to_map, to_tokens

_INTERPOLATION = {1: "linear", 2: "bicubic", 3: "trilinear"}


def resize_positions(
    positions: Tensor, old: Sequence[int], new: Sequence[int], prefix: int = 0, mode: str | None = None
) -> Tensor:
    """Interpolate ``(1, prefix + L, C)`` from one grid to another; the first ``prefix`` belong to no cell.

    By default bicubically in two dimensions.
    """
    if same_size(old, new):
        return positions
    grid = to_map(positions[:, prefix:], old)
    if mode == "nearest":
        grid = _nearest(grid, new)
    else:
        grid = F.interpolate(grid, tuple(new), mode=mode or _INTERPOLATION[len(new)], align_corners=False)
    return torch.cat([positions[:, :prefix], to_tokens(grid)], dim=1)


def _nearest(grid: Tensor, new: Sequence[int]) -> Tensor:
    """Return what ``F.interpolate`` does; onnxruntime rounds otherwise where cells meet, from 14 to 2 for one."""
    for axis, size in enumerate(new, start=2):
        cells = torch.arange(size, dtype=torch.float32, device=grid.device) * (grid.shape[axis] / size)
        grid = grid.index_select(axis, cells.long().clamp(max=grid.shape[axis] - 1))
    return grid


def fit_positions(positions: Tensor, grid: Sequence[int], prefix: int = 0, mode: str | None = None) -> Tensor:
    """Interpolate the positions of a square or cube, as files hold them, to ``grid``; return others as they are."""
    cells, axes = positions.shape[1] - prefix, len(grid)
    side = round(max(cells, 0) ** (1 / axes))
    return resize_positions(positions, (side,) * axes, grid, prefix, mode) if side**axes == cells else positions
