"""MONAI's blocks of UNETR at any size and for any strides, along each axis its own.

Imported when a head is built: MONAI takes seconds to import.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from monai.networks.blocks import UnetOutBlock, UnetrBasicBlock, UnetrPrUpBlock, UnetrUpBlock
from torch import Tensor, nn

from densevit.layers import crop
from densevit.tasks.medical.levels import Stride, steps

POOLS: dict[int, Callable[..., nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


class Convolve(UnetrBasicBlock):
    """Convolutions, the first of which has a stride: ``(N, C, *space)`` to ``ceil(space / stride)``.

    MONAI's strides end at 2; a larger one, that of a patch of 14 pixels for one, becomes a mean before it.
    """

    def __init__(self, axes: int, inputs: int, outputs: int, stride: Stride, *options: Any) -> None:
        large = max(stride) > 2
        super().__init__(axes, inputs, outputs, 3, 1 if large else stride, *options)
        self.pool = POOLS[axes](stride, ceil_mode=True) if large else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pool(x))


class Merge(UnetrUpBlock):
    """Raises a map and merges it with a finer one of the channels that it gives."""

    def forward(self, x: Tensor, fine: Tensor) -> Tensor:
        raised = crop(self.transp_conv(x), fine.shape[2:])
        return self.conv_block(torch.cat([raised, fine], dim=1))


@dataclass(frozen=True)
class UNETRBlocks:
    """What builds them.

    Attributes:
        axes: Spatial axes, 2 or 3.
        norm: MONAI's name of the normalisation, or that and its arguments.
        res_block: Blocks of two convolutions have a shortcut.
        conv_block: Maps that are raised by several steps pass such a block after each but the first.
    """

    axes: int
    norm: str | tuple[str, dict[str, Any]]
    res_block: bool
    conv_block: bool

    def convolve(self, inputs: int, outputs: int, stride: Stride) -> nn.Module:
        """Return a `Convolve`."""
        return Convolve(self.axes, inputs, outputs, stride, self.norm, self.res_block)

    def raise_(self, inputs: int, outputs: int, ratio: Stride) -> nn.Module:
        """Return what divides the cells of a map by ``ratio``, by the smallest factor along each axis at a time."""
        blocks = []
        for kernel, equal in groupby(steps(ratio)):
            more = len(list(equal)) - 1
            options = (kernel, self.norm, self.conv_block, self.res_block)
            blocks.append(UnetrPrUpBlock(self.axes, inputs, outputs, more, 3, 1, *options))
            inputs = outputs
        return blocks[0] if len(blocks) == 1 else nn.Sequential(*blocks)

    def merge(self, inputs: int, outputs: int, ratio: Stride) -> nn.Module:
        """Return a `Merge`."""
        return Merge(self.axes, inputs, outputs, 3, ratio, self.norm, self.res_block)

    def classify(self, inputs: int, num_classes: int) -> nn.Module:
        """Return the last layer, of logits."""
        return UnetOutBlock(self.axes, inputs, num_classes)
