"""Inverted residual feed-forward layer of CMT.

Paper: https://arxiv.org/abs/2107.06263
"""

from torch import Tensor, nn
from torch.nn import functional as F

from densevit.layers.shape import pointwise, to_map, to_tokens


class InvertedResidualFFN(nn.Module):
    """Widen, mix neighbours by a depthwise convolution with a shortcut, narrow: on a map ``(N, C, H, W)``.

    The first two convolutions are followed by GELU, then BatchNorm; the shortcut lies before its GELU.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(dim, hidden, 1), nn.GELU(), nn.BatchNorm2d(hidden))
        self.proj = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.proj_bn = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Sequential(nn.Conv2d(hidden, dim, 1), nn.BatchNorm2d(dim))

    def forward(self, x: Tensor) -> Tensor:
        widen, _, norm1 = self.conv1
        narrow, norm2 = self.conv2
        x = norm1(gelu(pointwise(x, widen.weight.flatten(1), widen.bias)))
        x = self.proj_bn(gelu(x + self.proj(x)))
        return norm2(pointwise(x, narrow.weight.flatten(1), narrow.bias))


def gelu(x: Tensor) -> Tensor:
    """GELU of a channels-last map. On the CPU it takes half the time on a contiguous view."""
    return to_map(F.gelu(to_tokens(x)), x.shape[2:])
