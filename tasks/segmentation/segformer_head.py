"""All-MLP segmentation head of SegFormer.

Paper: https://arxiv.org/abs/2105.15203
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densevit.features import Features, Specs
from densevit.layers import pointwise, resize
from densevit.registry import HEADS
from densevit.tasks.segmentation.head import SegmentationHead


class ConvNorm(nn.Module):
    """Parameters of a 1x1 convolution and its batch norm."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)


@HEADS.register_module()
class SegFormerHead(SegmentationHead):
    """Bring every level to one width and the finest grid, fuse, classify each cell.

    Parameters are named as in the official release. It computes there ``fuse(concat(resize(linear_i(x_i))))``; as both
    layers are linear and resizing acts on each channel alone, that is ``sum_i resize((fuse_i linear_i) x_i)``, which
    needs less than a fifth of the multiplications and never holds the concatenation.

    Args:
        specs: Maps to read, fine to coarse.
        num_classes: Number of classes, ``ignore_index`` not counted.
        channels: Common width of the levels.
        dropout: Rate of channel dropout before the classifier.
        ignore_index: Label of pixels that give no loss.
        class_weights: Weight of each class in the loss; all 1 by default.
    """

    def __init__(
        self,
        specs: Specs,
        num_classes: int,
        channels: int = 256,
        dropout: float = 0.1,
        ignore_index: int = 255,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(specs[0].stride, num_classes, ignore_index, class_weights)
        self.num_levels = len(specs)
        for i, spec in enumerate(specs, start=1):
            self.add_module(f"linear_c{i}", nn.ModuleDict({"proj": nn.Linear(spec.channels, channels)}))
        self.linear_fuse = ConvNorm(channels * len(specs), channels)
        self.dropout = nn.Dropout2d(dropout)
        self.linear_pred = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features: Features) -> Tensor:
        """Return class logits on the grid of the finest map, ``(N, K, h, w)``."""
        x = self.dropout(F.relu(self._fuse(features.maps), inplace=True))
        return pointwise(x, self.linear_pred.weight.flatten(1), self.linear_pred.bias)

    def _fuse(self, maps: Sequence[Tensor]) -> Tensor:
        bn = self.linear_fuse.bn
        weights, bias = self._products()
        if not bn.training:
            mean, var = bn.running_mean, bn.running_var
            assert isinstance(mean, Tensor)
            assert isinstance(var, Tensor)
            scale = bn.weight * (var + bn.eps).rsqrt()
            weights = [scale[:, None] * w for w in weights]
            bias = (bias - mean) * scale + bn.bias
        x = pointwise(maps[0], weights[0], bias)
        for weight, level in zip(weights[1:], maps[1:], strict=True):
            # In place on what resizing made, which nothing else holds.
            x = resize(pointwise(level, weight), x.shape[2:]).add_(x)
        return bn(x) if bn.training else x

    def _products(self) -> tuple[list[Tensor], Tensor]:
        """Return ``(channels, channels of level i)`` per level and the common bias: both linear layers in one."""
        linears = [getattr(self, f"linear_c{i}")["proj"] for i in range(1, self.num_levels + 1)]
        # The official concatenation runs from coarse to fine.
        fuse = self.linear_fuse.conv.weight[:, :, 0, 0].chunk(self.num_levels, dim=1)[::-1]
        bias = torch.stack([f @ lin.bias for f, lin in zip(fuse, linears, strict=True)]).sum(dim=0)
        return [f @ lin.weight for f, lin in zip(fuse, linears, strict=True)], bias

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the layout of transformers; drop the classifier that official checkpoints hold and do not use."""
        translated = {}
        for key, value in state.items():
            level = re.match(r"(?:linear_c|linear_projections)\.(\d)\.(.*)", key)
            if level is not None:
                key = f"linear_c{int(level[1]) + 1}.{level[2]}"
            key = re.sub(r"^linear_fuse\.(?=weight)", "linear_fuse.conv.", key)
            key = re.sub(r"^batch_norm\.", "linear_fuse.bn.", key)
            key = re.sub(r"^classifier\.", "linear_pred.", key)
            if not key.startswith("conv_seg."):
                translated[key] = value
        return translated
