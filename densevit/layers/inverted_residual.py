"""Inverted residual feed-forward layer of CMT.

Paper: https://arxiv.org/abs/2107.06263
"""

from torch import Tensor, nn

from densevit.layers.channels_last import ChannelsLastGELU, PointwiseConv2d


class InvertedResidualFFN(nn.Module):
    """Widen, mix neighbours by a depthwise convolution with a shortcut, narrow: on a map ``(N, C, H, W)``.

    The first two convolutions are followed by GELU, then BatchNorm; the shortcut lies before its GELU.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(PointwiseConv2d(dim, hidden), ChannelsLastGELU(), nn.BatchNorm2d(hidden))
        self.proj = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = ChannelsLastGELU()
        self.proj_bn = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Sequential(PointwiseConv2d(hidden, dim), nn.BatchNorm2d(dim))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.conv2(self.proj_bn(self.act(x + self.proj(x))))
