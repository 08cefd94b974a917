"""The mask of each object within its box.

Paper: https://arxiv.org/abs/1703.06870
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from densevit.tasks.detection.conv_tower import conv_tower

CHUNK = 32  # masks of objects that are held as floating point numbers at once


class MaskHead(nn.Module):
    """Convolutions, of which the last doubles the grid. Parameters are named as in mmdetection.

    Args:
        in_channels: Channels of the maps.
        num_classes: Number of classes.
        channels: Width of the convolutions.
        num_convs: Number of those of 3 x 3 cells.
        class_agnostic: Predict one mask for all classes.
        norm: Put batch norm after those of 3 x 3 cells.

    Attributes:
        size: Cells on a side of what it reads of a box.
    """

    size = 14

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        channels: int = 256,
        num_convs: int = 4,
        class_agnostic: bool = False,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.convs = conv_tower(in_channels, channels, num_convs, norm)
        self.upsample = nn.ConvTranspose2d(channels if num_convs else in_channels, channels, 2, stride=2)
        self.conv_logits = nn.Conv2d(channels, 1 if class_agnostic else num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.conv_logits.weight, std=0.001)  # of one class, the above would be of order 1

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(n, K or 1, 28, 28)`` for ``(n, C, 14, 14)``, in fp32."""
        return self.conv_logits(F.relu(self.upsample(self.convs(x)))).float()

    def loss(self, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """Return cross entropy per cell of the masks ``(n, 28, 28)`` that the labels ``(n,)`` choose; 0 for none."""
        chosen = self.of_class(logits, labels)
        return F.binary_cross_entropy_with_logits(chosen, targets, reduction="sum") / max(targets.numel(), 1)

    @staticmethod
    def of_class(logits: Tensor, labels: Tensor) -> Tensor:
        """Return ``(n, M, M)``, of ``(n, K or 1, M, M)`` those of the labels ``(n,)``."""
        channel = labels if logits.shape[1] > 1 else torch.zeros_like(labels)
        return logits[torch.arange(labels.shape[0], device=labels.device), channel]


def mask_targets(masks: Tensor, index: Tensor, boxes: Tensor, size: int = 2 * MaskHead.size) -> Tensor:
    """Return ``(n, size, size)``, 1 where at least half of a cell is inside of the object.

    Args:
        masks: ``(m, H, W)`` uint8.
        index: ``(n,)``, which of the masks each box cuts.
        boxes: ``(n, 4)`` in pixels of the masks.
        size: Cells on a side of a box.
    """
    targets = boxes.new_zeros(len(boxes), size, size)
    for start in range(0, len(masks), CHUNK):
        here = ((index >= start) & (index < start + CHUNK)).nonzero()[:, 0]
        rois = torch.cat([(index[here, None] - start).to(boxes), boxes[here]], dim=1)
        part = masks[start : start + CHUNK, None].to(boxes)
        targets[here] = (roi_align(part, rois, size, sampling_ratio=0, aligned=True)[:, 0] >= 0.5).to(boxes)
    return targets
