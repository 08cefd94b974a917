"""Segmentation head of Semantic FPN, which reads the levels of an `FPN` neck.

Paper: https://arxiv.org/abs/1901.02446
"""

from collections.abc import Sequence

from torch import Tensor, nn

from densevit.errors import ConfigError
from densevit.features import Features, Specs
from densevit.layers import ceil_div, init_weights, resize
from densevit.registry import HEADS
from densevit.tasks.segmentation.conv_norm import conv_norm_relu
from densevit.tasks.segmentation.head import SegmentationHead


@HEADS.register_module()
class FPNHead(SegmentationHead):
    """Convolve and double each level until it has the finest grid, sum, classify each cell.

    Parameters are named as in mmsegmentation, where grids are doubled, and the last one resized if that is not the
    finest. Here each is brought to the exact size of its stride, which is the same where inputs are divisible.

    Args:
        specs: Maps to read, fine to coarse; their strides are those of the first times powers of two.
        num_classes: Number of classes, ``ignore_index`` not counted.
        channels: Width of the convolutions.
        dropout: Rate of channel dropout before the classifier.
        ignore_index: Label of pixels that give no loss.
        class_weights: Weight of each class in the loss; all 1 by default.

    Raises:
        ConfigError: Strides that doubling does not lead to.
    """

    def __init__(
        self,
        specs: Specs,
        num_classes: int,
        channels: int = 128,
        dropout: float = 0.1,
        ignore_index: int = 255,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(specs[0].stride, num_classes, ignore_index, class_weights)
        self.doublings = [_doublings(spec.stride, specs[0].stride) for spec in specs]
        self.scale_heads = nn.ModuleList()
        for spec, doublings in zip(specs, self.doublings, strict=True):
            widths = [spec.channels] + [channels] * (doublings - 1)
            convs = [conv_norm_relu(width, channels, 3) for width in widths]
            # Between them mmsegmentation counts the layers that double.
            self.scale_heads.append(nn.ModuleDict({str(2 * i): conv for i, conv in enumerate(convs)}))
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.apply(init_weights)
        nn.init.normal_(self.conv_seg.weight, std=0.01)

    def forward(self, features: Features) -> Tensor:
        """Return class logits on the grid of the finest map, ``(N, K, h, w)``."""
        finest = features.maps[0].shape[2:]
        total: Tensor | None = None
        for x, convs, doublings in zip(features.maps, self.scale_heads, self.doublings, strict=True):
            for i, conv in enumerate(convs.children(), start=1):
                scale = 2 ** max(doublings - i, 0)
                x = resize(conv(x), [ceil_div(n, scale) for n in finest])
            total = x if total is None else total + x
        return self.conv_seg(self.dropout(total))


def _doublings(stride: tuple[int, ...], finest: tuple[int, ...]) -> int:
    """Return how often a grid of ``stride`` must be doubled to get the finest."""
    doublings = (stride[0] // finest[0]).bit_length() - 1
    if stride != tuple(s << doublings for s in finest):
        raise ConfigError(f"FPNHead cannot double stride {stride} to {finest}: choose other maps by out_indices")
    return doublings
