"""Image, volume or map to tokens."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densevit.layers.by_axes import CONVS
from densevit.layers.channels_last import ChannelsLastGELU
from densevit.layers.pad import pad_to_multiple
from densevit.layers.shape import to_tokens


class PatchEmbed(nn.Module):
    """Cut into patches and project each: ``(N, C, *space)`` to tokens ``(N, L, dim)`` and the grid of the patches.

    Inputs are padded by zeros to whole patches, so that a grid has ``ceil(n / patch_size)`` cells per axis.
    ``patch_size`` is the side of patches of images, or what they measure along each axis.
    """

    def __init__(self, in_channels: int, dim: int, patch_size: int | Sequence[int]) -> None:
        super().__init__()
        self.patch_size = (patch_size, patch_size) if isinstance(patch_size, int) else tuple(patch_size)
        self.proj = CONVS[len(self.patch_size)](in_channels, dim, self.patch_size, self.patch_size)

    def forward(self, x: Tensor) -> tuple[Tensor, torch.Size]:
        x, grid = patches(pad_to_multiple(x, self.patch_size), self.patch_size)
        return F.linear(x, self.proj.weight.flatten(1), self.proj.bias), grid


def patches(x: Tensor, patch_size: Sequence[int]) -> tuple[Tensor, torch.Size]:
    """Cut ``(N, C, *space)`` into patches ``(N, L, C * prod(patch_size))``; return them and their grid.

    A linear layer of them is a convolution by kernels that do not overlap, and faster: on a CPU in bf16 ten times.
    """
    axes = len(patch_size)
    for axis, side in enumerate(patch_size):
        x = x.unflatten(2 + 2 * axis, (-1, side))
    x = x.permute(0, *range(2, 2 + 2 * axes, 2), 1, *range(3, 3 + 2 * axes, 2))
    grid = x.shape[1 : 1 + axes]
    return x.flatten(1 + axes).flatten(1, axes), grid


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
    """Strided convolution whose windows overlap, then LayerNorm: ``(N, C, *space)`` to ``(N, L, dim)`` and the grid.

    A grid has ``ceil(n / stride)`` cells per axis.
    """

    def __init__(self, in_channels: int, dim: int, kernel_size: int, stride: int, axes: int = 2) -> None:
        super().__init__()
        self.proj = CONVS[axes](in_channels, dim, kernel_size, stride, padding=kernel_size // 2)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> tuple[Tensor, torch.Size]:
        x = self.proj(x)
        return self.norm(to_tokens(x)), x.shape[2:]
