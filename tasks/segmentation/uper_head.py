"""Segmentation head of UPerNet: pyramid pooling on the coarsest map, then a feature pyramid.

Paper: https://arxiv.org/abs/1807.10221
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densevit.features import Features, Losses, Maps, Specs
from densevit.layers import init_weights, resize
from densevit.registry import HEADS
from densevit.structures import Sample
from densevit.tasks.segmentation.conv_norm import conv_norm_relu
from densevit.tasks.segmentation.head import SegmentationHead


@HEADS.register_module()
class UPerHead(SegmentationHead):
    """Pool the coarsest map at several scales, add coarse levels to fine ones, fuse all, classify each cell.

    Parameters are named as in mmsegmentation. The map pooled to one cell has one value per channel and sample, so
    that batch norm needs two samples per process in training.

    Args:
        specs: Maps to read, fine to coarse.
        num_classes: Number of classes, ``ignore_index`` not counted.
        channels: Common width of the levels.
        pool_scales: Cells per axis to which the coarsest map is pooled.
        dropout: Rate of channel dropout before the classifier.
        auxiliary: Config of a second head that reads the same maps in training only, `FCNHead` for instance.
        auxiliary_weight: Factor to the loss of that head.
        ignore_index: Label of pixels that give no loss.
        class_weights: Weight of each class in the loss; all 1 by default.
    """

    def __init__(
        self,
        specs: Specs,
        num_classes: int,
        channels: int = 512,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
        auxiliary: dict[str, Any] | None = None,
        auxiliary_weight: float = 0.4,
        ignore_index: int = 255,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(specs[0].stride, num_classes, ignore_index, class_weights)
        *fine, coarsest = (spec.channels for spec in specs)
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), conv_norm_relu(coarsest, channels, 1)) for scale in pool_scales
        )
        self.bottleneck = conv_norm_relu(coarsest + len(pool_scales) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(conv_norm_relu(width, channels, 1) for width in fine)
        self.fpn_convs = nn.ModuleList(conv_norm_relu(channels, channels, 3) for _ in fine)
        self.fpn_bottleneck = conv_norm_relu(len(specs) * channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.apply(init_weights)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        self.auxiliary_weight = auxiliary_weight
        self.auxiliary_head: SegmentationHead | None = None
        if auxiliary is not None:
            shared = {"num_classes": num_classes, "ignore_index": ignore_index, "class_weights": class_weights}
            self.auxiliary_head = HEADS.build(auxiliary, {"specs": specs, **shared})

    def forward(self, features: Features) -> Tensor | tuple[Tensor, Tensor]:
        """Return class logits on the grid of the finest map, ``(N, K, h, w)``; in training those of both heads."""
        logits = self._decode(features.maps)
        if self.auxiliary_head is None or not self.training:
            return logits
        return logits, self.auxiliary_head(features)

    def _decode(self, maps: Maps) -> Tensor:
        pooled = [resize(module(maps[-1]), maps[-1].shape[2:]) for module in self.psp_modules]
        levels = [conv(x) for conv, x in zip(self.lateral_convs, maps[:-1], strict=True)]
        levels.append(self.bottleneck(torch.cat([maps[-1], *pooled], dim=1)))
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + resize(levels[i], levels[i - 1].shape[2:])
        outs = [conv(x) for conv, x in zip(self.fpn_convs, levels[:-1], strict=True)] + levels[-1:]
        x = self.fpn_bottleneck(torch.cat([resize(x, maps[0].shape[2:]) for x in outs], dim=1))
        return self.conv_seg(self.dropout(x))

    def loss(self, outputs: Tensor | tuple[Tensor, Tensor], samples: Sequence[Sample]) -> Losses:
        """Return the losses of `SegmentationHead`, and in training that of the second head as "loss_aux"."""
        if isinstance(outputs, Tensor):
            return super().loss(outputs, samples)
        assert self.auxiliary_head is not None
        logits, auxiliary = outputs
        loss = self.auxiliary_head.loss(auxiliary, samples)["loss_seg"]
        return {**super().loss(logits, samples), "loss_aux": self.auxiliary_weight * loss}

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the layout of transformers; that of mmsegmentation is ours."""
        renamed = {re.sub(r"\bbatch_norm\.", "bn.", key): value for key, value in state.items()}
        return {re.sub(r"^(auxiliary_head\.)?classifier\.", r"\1conv_seg.", key): v for key, v in renamed.items()}
