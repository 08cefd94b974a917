"""Head of a fully convolutional network.

Paper: https://arxiv.org/abs/1411.4038
"""

from collections.abc import Sequence

from torch import Tensor, nn

from densevit.errors import ConfigError
from densevit.features import Features, Specs
from densevit.layers import init_weights
from densevit.registry import HEADS
from densevit.tasks.segmentation.conv_norm import conv_norm_relu
from densevit.tasks.segmentation.head import SegmentationHead


@HEADS.register_module()
class FCNHead(SegmentationHead):
    """3x3 convolutions of one map, then classify each cell. Parameters are named as in mmsegmentation.

    Args:
        specs: Maps of the backbone or neck, fine to coarse.
        num_classes: Number of classes, ``ignore_index`` not counted.
        index: Which of the maps to read.
        channels: Width of the convolutions.
        num_convs: Number of convolutions.
        dropout: Rate of channel dropout before the classifier.
        ignore_index: Label of pixels that give no loss.
        class_weights: Weight of each class in the loss; all 1 by default.

    Raises:
        ConfigError: There is no such map, or no convolution.
    """

    def __init__(
        self,
        specs: Specs,
        num_classes: int,
        index: int = 2,
        channels: int = 256,
        num_convs: int = 1,
        dropout: float = 0.1,
        ignore_index: int = 255,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        if not -len(specs) <= index < len(specs):
            raise ConfigError(f"FCNHead is given {len(specs)} maps: index must be 0 to {len(specs) - 1}, not {index}")
        if num_convs < 1:
            raise ConfigError(f"num_convs of FCNHead must be at least 1, not {num_convs}")
        super().__init__(specs[index].stride, num_classes, ignore_index, class_weights)
        self.index = index
        widths = [specs[index].channels] + [channels] * (num_convs - 1)
        self.convs = nn.Sequential(*(conv_norm_relu(width, channels, 3) for width in widths))
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.apply(init_weights)
        nn.init.normal_(self.conv_seg.weight, std=0.01)

    def forward(self, features: Features) -> Tensor:
        """Return class logits on the grid of the map it reads, ``(N, K, h, w)``."""
        return self.conv_seg(self.dropout(self.convs(features.maps[self.index])))
