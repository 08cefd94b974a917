# residual_pyramid.py
"""A small pyramid of convolutions: maps at strides 4, 8, 16 and 32."""

from collections.abc import Sequence

from torch import Tensor, nn

from densevit import BACKBONES, Backbone, Features, FeatureSpec


class Block(nn.Module):
    """Look around by a depthwise convolution, then mix the channels of each cell."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(width, width, 5, padding=2, groups=width, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.mix = nn.Sequential(nn.Conv2d(width, 3 * width, 1), nn.GELU(), nn.Conv2d(3 * width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with what the block adds to it, ``(N, width, h, w)``."""
        return x + self.mix(self.norm(self.around(x)))


def halve(channels: int, width: int) -> nn.Conv2d:
    """Return a convolution to half of the height and width, rounded up."""
    return nn.Conv2d(channels, width, 3, stride=2, padding=1)


@BACKBONES.register_module()
class ResidualPyramid(Backbone):
    """Four stages of blocks; each halves the grid and doubles the width of the one before.

    Args:
        width: Channels of the first stage.
        depths: Blocks of each stage.
        in_channels: Channels of the images.
    """

    divisor = (32, 32)

    def __init__(self, width: int = 24, depths: Sequence[int] = (1, 1, 2, 1), in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        widths = [width * 2**i for i in range(len(depths))]
        self.stem = halve(in_channels, width)
        self.stages = nn.ModuleList(
            nn.Sequential(halve(before, after), *(Block(after) for _ in range(depth)))
            for before, after, depth in zip([width, *widths], widths, depths, strict=False)
        )
        self.specs = tuple(FeatureSpec(each, (4 * 2**i,) * 2) for i, each in enumerate(widths))

    def forward(self, x: Tensor) -> Features:
        """Return the maps of ``(N, in_channels, H, W)``, fine to coarse."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = self.run(stage, x)
            maps.append(x)
        return Features(tuple(maps))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Return the names of what is built, from the input on, for learning rates that fall with the depth."""
        return [("stem.",), *((f"stages.{i}.",) for i in range(len(self.stages)))]
