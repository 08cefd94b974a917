"""Inverted residual feed-forward layer of CMT.

Paper: https://arxiv.org/abs/2107.06263
"""

from torch import Tensor, nn

from densevit.layers.by_axes import BATCH_NORMS, CONVS
from densevit.layers.channels_last import POINTWISE_CONVS, ChannelsLastGELU


class InvertedResidualFFN(nn.Module):
    """Widen, mix neighbours by a depthwise convolution with a shortcut, narrow: on a map ``(N, C, *grid)``.

    The first two convolutions are followed by GELU, then BatchNorm; the shortcut lies before its GELU.
    """

    def __init__(self, dim: int, hidden: int, axes: int = 2) -> None:
        super().__init__()
        pointwise, norm = POINTWISE_CONVS[axes], BATCH_NORMS[axes]
        self.conv1 = nn.Sequential(pointwise(dim, hidden), ChannelsLastGELU(), norm(hidden))
        self.proj = CONVS[axes](hidden, hidden, 3, padding=1, groups=hidden)
        self.act = ChannelsLastGELU()
        self.proj_bn = norm(hidden)
        self.conv2 = nn.Sequential(pointwise(hidden, dim), norm(dim))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.conv2(self.proj_bn(self.act(x + self.proj(x))))
