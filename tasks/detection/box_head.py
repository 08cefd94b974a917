"""Class and box of each proposal.

Papers: https://arxiv.org/abs/1504.08083; https://arxiv.org/abs/1803.08494, section 4.1 (with four convolutions)
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densevit.features import Losses
from densevit.tasks.detection.box_coder import decode, encode
from densevit.tasks.detection.conv_tower import conv_tower
from densevit.tasks.detection.head import Instances, clip


class BoxHead(nn.Module):
    """Perhaps convolutions, fully connected layers, and two linear ones. Parameters are named as in mmdetection.

    Args:
        in_channels: Channels of the maps.
        num_classes: Number of classes, without background, which comes last.
        fc_channels: Width of the fully connected layers.
        num_fcs: Number of them.
        num_convs: Convolutions before them, as wide as the maps, with batch norm.
        class_agnostic: Predict one box for all classes.
        stds: The four numbers of a box are divided by these.

    Attributes:
        size: Cells on a side of what it reads of a box.
    """

    size = 7

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        fc_channels: int = 1024,
        num_fcs: int = 2,
        num_convs: int = 0,
        class_agnostic: bool = False,
        stds: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
    ) -> None:
        super().__init__()
        self.num_classes, self.stds = num_classes, tuple(stds)
        self.shared_convs = conv_tower(in_channels, in_channels, num_convs, norm=True)
        widths = [in_channels * self.size**2] + [fc_channels] * num_fcs
        self.shared_fcs = nn.ModuleList(map(nn.Linear, widths[:-1], widths[1:]))
        self.fc_cls = nn.Linear(widths[-1], num_classes + 1)
        self.fc_reg = nn.Linear(widths[-1], 4 if class_agnostic else 4 * num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.fc_cls.weight, std=0.01)
        nn.init.normal_(self.fc_reg.weight, std=0.001)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(n, K + 1)`` and offsets ``(n, K or 1, 4)`` for ``(n, C, 7, 7)``, in fp32."""
        x = self.shared_convs(x).flatten(1)
        for layer in self.shared_fcs:
            x = F.relu(layer(x))
        return self.fc_cls(x).float(), self.fc_reg(x).float().unflatten(1, (-1, 4))

    def loss(self, outputs: tuple[Tensor, Tensor], proposals: Tensor, labels: Tensor, goals: Tensor) -> Losses:
        """Return cross entropy of the class and distance of the boxes, both per proposal, and the share that is right.

        Args:
            outputs: What ``forward`` returned for n proposals.
            proposals: ``(n, 4)``.
            labels: ``(n,)``, the number of classes for background.
            goals: ``(m, 4)``, boxes of the objects of those m proposals that are no background, in their order.
        """
        logits, deltas = outputs
        count = max(len(labels), 1)
        inside = (labels < self.num_classes).nonzero()[:, 0]
        offsets = self._of_class(deltas, inside, labels[inside])
        return {
            "loss_cls": F.cross_entropy(logits, labels, reduction="sum") / count,
            "loss_bbox": (offsets - encode(proposals[inside], goals, self.stds)).abs().sum() / count,
            "acc_cls": (logits.argmax(dim=1) == labels).sum() / count,
        }

    def detect(
        self, proposals: Tensor, scores: Tensor, deltas: Tensor, size: Sequence[int], threshold: float
    ) -> Instances:
        """Return every pair of a proposal ``(n, 4)`` and a class whose score, of ``(n, K)``, is above a threshold."""
        place, label = (scores > threshold).nonzero(as_tuple=True)
        boxes = decode(proposals[place], self._of_class(deltas, place, label), self.stds)
        return Instances(clip(boxes, size), scores[place, label], label)

    @torch.no_grad()
    def refine(self, proposals: Tensor, deltas: Tensor, size: Sequence[int]) -> Tensor:
        """Return the boxes ``(n, 4)`` that a class-agnostic head makes of proposals."""
        return clip(decode(proposals, deltas[:, 0], self.stds), size)

    def _of_class(self, deltas: Tensor, place: Tensor, label: Tensor) -> Tensor:
        return deltas[place, label if deltas.shape[1] > 1 else torch.zeros_like(label)]
