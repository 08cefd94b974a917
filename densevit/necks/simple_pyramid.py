"""Simple feature pyramid, from the single stride of a plain vision transformer.

Paper: https://arxiv.org/abs/2203.16527 (ViTDet)
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from torch import Tensor, nn

from densevit.errors import ConfigError
from densevit.features import FeatureSpec, Maps, Neck, Specs
from densevit.layers import ChannelNorm, ceil_div, crop, pad_to_multiple, resize
from densevit.registry import NECKS


@NECKS.register_module()
class SimplePyramid(Neck):
    """Resample one map to every stride, each level by itself.

    All levels read the coarsest map, unless there is one map per level and all have one stride, as after several blocks
    of a vision transformer: then each reads its own.

    A map is brought to a stride by the power of two that comes nearest: learnt doublings, or the maximum of cells.
    Where that is not exact, as from stride 14 or 7, bilinear interpolation does the rest; cells stay in place.

    Args:
        specs: Maps to read.
        out_channels: Width of every level.
        strides: Strides of the levels, fine to coarse, each at least twice the one before.

    Raises:
        ConfigError: There is no map, or ``strides`` are too near or out of order.
    """

    def __init__(self, specs: Specs, out_channels: int = 256, strides: Sequence[int] = (4, 8, 16, 32)) -> None:
        super().__init__()
        if not specs:
            raise ConfigError("SimplePyramid reads maps: the backbone must return one")
        if any(coarse < 2 * fine for fine, coarse in pairwise(strides)):
            raise ConfigError(f"strides of SimplePyramid must double at least, not {tuple(strides)}")
        each = len(specs) == len(strides) and len({spec.stride for spec in specs}) == 1
        self.reads = list(range(len(specs))) if each else [len(specs) - 1] * len(strides)
        self.specs = tuple(FeatureSpec(out_channels, (stride, stride)) for stride in strides)
        self.levels = [f"simfp_{spec.level}" for spec in self.specs]
        for name, i, stride in zip(self.levels, self.reads, strides, strict=True):
            layers, channels = _resample(specs[i], stride)
            layers += [NormedConv(channels, out_channels, 1), NormedConv(out_channels, out_channels, 3)]
            self.add_module(name, nn.Sequential(*layers))

    def forward(self, maps: Maps, space: Sequence[int]) -> Maps:
        """Return the levels, the fine ones cut to ``space``: a cell that is divided may reach beyond the image."""
        levels = []
        for name, i, spec in zip(self.levels, self.reads, self.specs, strict=True):
            size = [ceil_div(n, stride) for n, stride in zip(space, spec.stride, strict=True)]
            levels.append(crop(getattr(self, name)(maps[i]), size))
        return tuple(levels)


class NormedConv(nn.Conv2d):
    """Convolution without bias that keeps the grid, then LayerNorm over channels."""

    def __init__(self, in_channels: int, channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = ChannelNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


class Rescale(nn.Module):
    """Interpolate a map to ``factor`` times as many cells; whole new cells cover it, and more where they must."""

    def __init__(self, factor: Fraction) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        cells, size = self.factor.denominator, self.factor.numerator
        x = pad_to_multiple(x, cells, mode="replicate")
        return resize(x, [n // cells * size for n in x.shape[2:]])

    def extra_repr(self) -> str:
        return f"factor={self.factor}"


def _resample(spec: FeatureSpec, stride: int) -> tuple[list[nn.Module], int]:
    """Return layers that bring a map to ``stride``, and the channels after them: half as many per doubling."""
    factor, channels = Fraction(spec.stride[-1], stride), spec.channels
    doublings = round(math.log2(factor))
    layers: list[nn.Module] = [nn.MaxPool2d(2**-doublings, ceil_mode=True)] if doublings < 0 else []
    for _ in range(doublings):
        if layers:
            layers += [ChannelNorm(channels), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, 2, 2))
        channels //= 2
    rest = factor / Fraction(2) ** doublings
    return layers + ([Rescale(rest)] if rest != 1 else []), channels
