"""Positions as waves, for any grid.

Paper: https://arxiv.org/abs/1706.03762, on an image as in https://arxiv.org/abs/2106.09681
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FourierPosition(nn.Module):
    """Encode the cells of a grid by a learned projection of sines and cosines.

    Positions are relative to the size of the grid, so that weights fit every size.

    Args:
        dim: Channels of the encoding.
        waves: Sines and cosines per axis.
        temperature: Ratio of the longest wavelength to the shortest, nearly.
    """

    def __init__(self, dim: int, waves: int = 32, temperature: float = 10000.0) -> None:
        super().__init__()
        self.waves = waves
        self.temperature = temperature
        self.token_projection = nn.Conv2d(2 * waves, dim, 1)

    def forward(self, grid: Sequence[int]) -> Tensor:
        """Return the encoding of a grid ``(H, W)`` as tokens ``(H * W, dim)``."""
        # A projection of rows and columns joined is the sum of their projections, which are few.
        of_rows, of_columns = self.token_projection.weight.flatten(1).chunk(2, dim=1)
        rows = F.linear(self._axis(grid[0]), of_rows, self.token_projection.bias)
        columns = F.linear(self._axis(grid[1]), of_columns)
        return (rows.unsqueeze(1) + columns).flatten(0, 1)

    def _axis(self, length: int) -> Tensor:
        """Return the waves at the cells of one axis, ``(length, waves)``; sine and cosine take turns."""
        weight, pairs = self.token_projection.weight, self.waves // 2
        cells = torch.arange(1, length + 1, dtype=torch.float32, device=weight.device)
        powers = torch.arange(pairs, dtype=torch.float32, device=weight.device) / pairs
        angles = (cells / (length + 1e-6) * (2 * math.pi)).unsqueeze(1) / self.temperature**powers
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(weight.dtype)
