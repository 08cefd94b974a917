"""Layers on channels-last maps that are faster than PyTorch's and give channels-last maps."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densevit.layers.shape import pointwise, to_map, to_tokens


class PointwiseConv2d(nn.Conv2d):
    """Convolution with kernel size 1 as a product of matrices, which takes three quarters of the time on the CPU."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight.flatten(1), self.bias)


class PointwiseConv3d(nn.Conv3d):
    """`PointwiseConv2d` of volumes."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight.flatten(1), self.bias)


POINTWISE_CONVS: dict[int, Callable[..., nn.Module]] = {2: PointwiseConv2d, 3: PointwiseConv3d}


def channels_last(x: Tensor) -> Tensor:
    """Return ``x``, an image or a volume, in that layout."""
    return x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)


class ChannelsLastGELU(nn.Module):
    """GELU of the tokens of a map: on the CPU it takes half the time of one of a channels-last view."""

    def forward(self, x: Tensor) -> Tensor:
        return to_map(F.gelu(to_tokens(x)), x.shape[2:])
