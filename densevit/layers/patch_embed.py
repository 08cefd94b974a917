"""Image or map to tokens."""

import torch
from torch import Tensor, nn

from densevit.layers.shape import to_tokens


class OverlapPatchEmbed(nn.Module):
    """Strided convolution whose windows overlap, then LayerNorm: ``(N, C, H, W)`` to ``(N, L, dim)`` and the grid.

    A grid has ``ceil(n / stride)`` cells per axis.
    """

    def __init__(self, in_channels: int, dim: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel_size, stride, padding=kernel_size // 2)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> tuple[Tensor, torch.Size]:
        x = self.proj(x)
        return self.norm(to_tokens(x)), x.shape[2:]
