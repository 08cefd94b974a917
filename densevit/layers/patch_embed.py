"""Image or map to tokens."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from densevit.layers.channels_last import ChannelsLastGELU
from densevit.layers.pad import pad_to_multiple
from densevit.layers.shape import to_tokens


class PatchEmbed(nn.Module):
    """Cut into patches and project each: ``(N, C, H, W)`` to tokens ``(N, L, dim)`` and the grid of the patches.

    Images are padded by zeros to whole patches, so that a grid has ``ceil(n / patch_size)`` cells per axis.
    """

    def __init__(self, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, dim, patch_size, patch_size)

    def forward(self, x: Tensor) -> tuple[Tensor, torch.Size]:
        x = self.proj(pad_to_multiple(x, self.patch_size))
        return to_tokens(x), x.shape[2:]


def halving_convs(in_channels: int, dim: int, patch_size: int) -> list[nn.Module]:
    """Return convolutions that each halve an image, normed and followed by GELU, until a cell stands for a patch.

    The channels double up to ``dim``. The layers are for channels-last images.
    """
    halvings = patch_size.bit_length() - 1
    layers: list[nn.Module] = []
    for before, after in pairwise([in_channels, *(dim >> i for i in reversed(range(halvings)))]):
        conv = nn.Conv2d(before, after, 3, 2, padding=1, bias=False)
        layers += [nn.Sequential(conv, nn.BatchNorm2d(after)), ChannelsLastGELU()]
    return layers


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
