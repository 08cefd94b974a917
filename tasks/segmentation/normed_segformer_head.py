"""SegFormer's head as mmsegmentation has it: each level is normed and rectified before they are fused.

Paper: https://arxiv.org/abs/2105.15203, which has neither there; the official code is `SegFormerHead`.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from densevit.features import Features, Specs
from densevit.layers import init_weights, resize
from densevit.registry import HEADS
from densevit.tasks.segmentation.conv_norm import conv_norm_relu
from densevit.tasks.segmentation.head import SegmentationHead


@HEADS.register_module()
class NormedSegFormerHead(SegmentationHead):
    """Bring every level to one width, norm and rectify it, bring it to the finest grid, fuse, classify each cell.

    Parameters are named as in mmsegmentation, whose checkpoints of SegFormer want this head. It fuses the concatenated
    levels; as that layer is linear, each level's part of it is computed on the grid of the level, and the parts added.

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
        self.convs = nn.ModuleList(conv_norm_relu(spec.channels, channels, 1) for spec in specs)
        self.fusion_conv = conv_norm_relu(channels * len(specs), channels, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.apply(init_weights)
        nn.init.normal_(self.conv_seg.weight, std=0.01)

    def forward(self, features: Features) -> Tensor:
        """Return class logits on the grid of the finest map, ``(N, K, h, w)``."""
        conv, norm, relu = self.fusion_conv
        weights = conv.get_parameter("weight").chunk(len(self.convs), dim=1)
        levels = zip(self.convs, weights, features.maps, strict=True)
        x, *others = (F.conv2d(level(y), weight) for level, weight, y in levels)
        for part in others:
            x = x + resize(part, x.shape[2:])
        return self.conv_seg(self.dropout(relu(norm(x))))
