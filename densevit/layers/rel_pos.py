"""Relative positions, decomposed into one learnt table per axis.

Paper: https://arxiv.org/abs/2112.01526, section 4.1
"""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from densevit.layers.shape import same_size

AXES = "thw"


def table_length(queries: int, keys: int) -> int:
    """Return the number of distances between ``queries`` and ``keys`` cells of one axis."""
    return 2 * max(queries, keys) - 1


def resize_table(table: Tensor, length: int) -> Tensor:
    """Interpolate a table of distances ``(L, C)`` linearly to ``(length, C)``."""
    if same_size(table.shape[:1], [length]):
        return table
    return F.interpolate(table.T[None], length, mode="linear", align_corners=False)[0].T


def relative_bias(q: Tensor, tables: Sequence[Tensor], q_grid: Sequence[int], k_grid: Sequence[int]) -> Tensor:
    """Return what relative positions add to the logits of attention.

    Args:
        q: Queries ``(N, heads, L, C)`` on their grid, not scaled.
        tables: ``(distances, C)`` per axis, interpolated if the grids are not those of training.
        q_grid: Cells of the queries per axis.
        k_grid: Cells of the keys per axis, over the same area.

    Returns:
        ``(N, heads, L, S)`` for ``S`` keys.
    """
    q, axes, parts = q.unflatten(2, tuple(q_grid)), AXES[-len(q_grid) :], []
    for i, axis in enumerate(axes):
        table = resize_table(tables[i], table_length(q_grid[i], k_grid[i]))
        positions = table[_distances(q_grid[i], k_grid[i], q.device)]
        # Small; without it the sum, which is not, would have to be copied.
        part = torch.einsum(f"nm{axes}c,{axis}kc->nm{axes}k", q, positions).contiguous()
        parts.append(part.unflatten(-1, [k_grid[i] if j == i else 1 for j in range(len(k_grid))]))
    return reduce(torch.add, parts).flatten(-len(k_grid)).flatten(2, -2)


def _distances(queries: int, keys: int, device: torch.device) -> Tensor:
    """Return the row of the table for each query and key, both counted in cells of the finer of the two.

    Whole numbers come from single precision, as officially: exact ones differ for a few pairs of grids, 39 and 10 say.
    """
    ratio = max(queries / keys, 1.0)
    i, j = (torch.arange(n, dtype=torch.float32, device=device) for n in (queries, keys))
    i, j = i[:, None] * max(keys / queries, 1.0), j[None] * ratio
    return (i - j + (keys - 1) * ratio).long()
