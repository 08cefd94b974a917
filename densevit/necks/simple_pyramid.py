"""Simple feature pyramid, from the single stride of a plain vision transformer.

Paper: https://arxiv.org/abs/2203.16527 (ViTDet)
"""

from collections.abc import Sequence

from torch import Tensor, nn

from densevit.errors import ConfigError
from densevit.features import FeatureSpec, Maps, Neck, Specs
from densevit.layers import ChannelNorm, crop
from densevit.registry import NECKS


@NECKS.register_module()
class SimplePyramid(Neck):
    """Resample one map to every stride, each level by itself.

    All levels read the coarsest map, unless there is one map per level and all have one stride, as after several blocks
    of a vision transformer: then each reads its own.

    Args:
        specs: Maps to read.
        out_channels: Width of every level.
        strides: Strides of the levels, fine to coarse.

    Raises:
        ConfigError: There is no map, ``strides`` do not increase, or one is not the stride that is read times or over
            a power of two.
    """

    def __init__(self, specs: Specs, out_channels: int = 256, strides: Sequence[int] = (4, 8, 16, 32)) -> None:
        super().__init__()
        if not specs:
            raise ConfigError("SimplePyramid reads maps: the backbone must return one")
        if list(strides) != sorted(set(strides)):
            raise ConfigError(f"strides of SimplePyramid must increase, not {tuple(strides)}")
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
            size = [-(-n // stride) for n, stride in zip(space, spec.stride, strict=True)]
            levels.append(crop(getattr(self, name)(maps[i]), size))
        return tuple(levels)


class NormedConv(nn.Conv2d):
    """Convolution without bias that keeps the grid, then LayerNorm over channels."""

    def __init__(self, in_channels: int, channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = ChannelNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


def _resample(spec: FeatureSpec, stride: int) -> tuple[list[nn.Module], int]:
    """Return layers that bring a map to ``stride``, and the channels after them: half as many per doubling."""
    old, channels = spec.stride[-1], spec.channels
    finer, coarser = max(old // stride, 1), max(stride // old, 1)
    if old * coarser != stride * finer or (finer * coarser).bit_count() != 1:
        raise ConfigError(f"SimplePyramid cannot bring a map of stride {old} to stride {stride}: choose other strides")
    layers: list[nn.Module] = [nn.MaxPool2d(coarser, ceil_mode=True)] if coarser > 1 else []
    for _ in range(finer.bit_length() - 1):
        if layers:
            layers += [ChannelNorm(channels), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, 2, 2))
        channels //= 2
    return layers, channels
