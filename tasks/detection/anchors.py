"""Anchors: boxes of several sizes and shapes around the corner of every cell.

Paper: https://arxiv.org/abs/1506.01497, section 3.1.1
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from densevit.errors import ConfigError
from densevit.features import Specs


class DenseOutputs(NamedTuple):
    """Maps of every level: ``logits`` ``(N, anchors * classes, h, w)`` and ``deltas`` ``(N, anchors * 4, h, w)``."""

    logits: list[Tensor]
    deltas: list[Tensor]


class Anchors:
    """Boxes per cell of each level, for every ratio every scale.

    An anchor is centred on the top left corner of its cell, as in detectron2 and mmdetection since version 2.

    Args:
        specs: Levels, fine to coarse.
        scales: Sides of a square anchor, in strides of its level.
        ratios: Heights over widths; the area is that of the square.

    Attributes:
        per_cell: Anchors of one cell.

    Raises:
        ConfigError: A scale or ratio is not positive, or there is none.
    """

    def __init__(self, specs: Specs, scales: Sequence[float], ratios: Sequence[float]) -> None:
        for name, values in (("scales", scales), ("ratios", ratios)):
            if not isinstance(values, Sequence) or not values or min(values) <= 0:
                raise ConfigError(f"anchor_{name} must be a list of positive numbers, not {values!r}")
        self.strides = [spec.stride for spec in specs]
        self.per_cell = len(scales) * len(ratios)
        roots, sides = torch.tensor(ratios).sqrt()[:, None], torch.tensor(scales, dtype=torch.float32)[None]
        self.widths, self.heights = (sides / roots).flatten(), (sides * roots).flatten()

    def of_cell(self, level: int) -> Tensor:
        """Return the anchors ``(per_cell, 4)`` of the first cell of a level, in pixels."""
        high, wide = self.strides[level]
        x, y = wide * self.widths / 2, high * self.heights / 2
        return torch.stack([-x, -y, x, y], dim=1)

    def __call__(self, sizes: Sequence[Sequence[int]], device: torch.device) -> list[Tensor]:
        """Return the anchors of each level, ``(h * w * per_cell, 4)``, row by row, for maps of sizes ``(h, w)``."""
        levels = []
        for level, (height, width) in enumerate(sizes):
            high, wide = self.strides[level]
            y = torch.arange(height, device=device) * high
            x = torch.arange(width, device=device) * wide
            corner = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).repeat(1, 1, 2)
            levels.append((corner[:, :, None] + self.of_cell(level).to(device)).view(-1, 4))
        return levels

    def rows(self, maps: Tensor, image: Tensor, place: Tensor) -> Tensor:
        """Return ``(n, C)`` of maps ``(N, per_cell * C, h, w)`` at anchors of images, counted as they are returned."""
        split = maps.unflatten(1, (self.per_cell, -1)).flatten(3)
        return split[image, place % self.per_cell, :, place // self.per_cell]


def octave_scales(base: float, count: int) -> list[float]:
    """Return ``count`` scales that divide an octave, from ``base`` on (https://arxiv.org/abs/1708.02002).

    Raises:
        ConfigError: ``base`` is not positive, or ``count`` below 1.
    """
    if base <= 0 or count < 1:
        raise ConfigError(f"anchor_scale must be positive and scales_per_octave at least 1, not {base} and {count}")
    return [base * 2 ** (i / count) for i in range(count)]
