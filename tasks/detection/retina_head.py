"""RetinaNet: classes and boxes from every cell of every level of a feature pyramid.

Paper: https://arxiv.org/abs/1708.02002
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from densevit.errors import ConfigError
from densevit.features import Features, Losses, Specs
from densevit.registry import HEADS
from densevit.structures import Sample
from densevit.tasks.detection.anchors import Anchors, DenseOutputs, octave_scales
from densevit.tasks.detection.batch_candidates import best_of_levels
from densevit.tasks.detection.box_coder import decode, encode
from densevit.tasks.detection.conv_tower import conv_tower
from densevit.tasks.detection.focal_loss import background_focal_loss, focal_loss
from densevit.tasks.detection.head import DetectionHead, Instances, clip, objects_of, width_of
from densevit.tasks.detection.matching import IGNORED, match

STDS = (1.0, 1.0, 1.0, 1.0)
PRIOR = 0.01  # probability of each class at the beginning: without it background would swamp the first steps


@HEADS.register_module()
class RetinaHead(DetectionHead):
    """Two towers of convolutions, which all levels share. Parameters are named as in mmdetection.

    Args:
        specs: Levels of the neck, fine to coarse.
        num_classes: Number of classes, without background.
        channels: Width of the towers.
        num_convs: Convolutions of each tower.
        anchor_scale: Side of the smallest square anchor of a level in strides.
        scales_per_octave: Sizes of anchors per level.
        anchor_ratios: Heights over widths of anchors.
        max_per_level: Candidates that a level gives, at most.
        score_threshold: Candidates of lower scores are dropped.
        nms_iou: Of two candidates of one class that overlap more, the better stays.
        max_per_image: Number of objects in an image, at most.

    Raises:
        ConfigError: Settings out of range.
    """

    usual_neck: ClassVar[dict[str, Any]] = {"type": "FPN", "start_level": 1, "num_outs": 5, "extra": "on_input"}
    usual_strides: ClassVar[tuple[int, ...]] = (8, 16, 32, 64, 128)

    def __init__(
        self,
        specs: Specs,
        num_classes: int,
        channels: int = 256,
        num_convs: int = 4,
        anchor_scale: float = 4.0,
        scales_per_octave: int = 3,
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        max_per_level: int = 1000,
        score_threshold: float = 0.05,
        nms_iou: float = 0.5,
        max_per_image: int = 100,
    ) -> None:
        super().__init__(num_classes, score_threshold, nms_iou, max_per_image)
        self.anchors = Anchors(specs, octave_scales(anchor_scale, scales_per_octave), anchor_ratios)
        if max_per_level < 1:
            raise ConfigError(f"max_per_level must be at least 1, not {max_per_level}")
        self.max_per_level, width = max_per_level, width_of(specs)
        self.cls_convs = conv_tower(width, channels, num_convs)
        self.reg_convs = conv_tower(width, channels, num_convs)
        width = channels if num_convs else width
        self.retina_cls = nn.Conv2d(width, self.anchors.per_cell * num_classes, 3, padding=1)
        self.retina_reg = nn.Conv2d(width, self.anchors.per_cell * 4, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        assert self.retina_cls.bias is not None
        nn.init.constant_(self.retina_cls.bias, -math.log(1 / PRIOR - 1))

    def forward(self, features: Features) -> DenseOutputs:
        """Return what the towers say of every level."""
        logits = [self.retina_cls(self.cls_convs(x)) for x in features.maps]
        return DenseOutputs(logits, [self.retina_reg(self.reg_convs(x)) for x in features.maps])

    def loss(self, outputs: DenseOutputs, samples: Sequence[Sample]) -> Losses:
        """Return the focal loss of the classes and the distance of the boxes, both per anchor that has an object."""
        logits = [x.float() for x in outputs.logits]
        anchors = self.anchors([x.shape[2:] for x in logits], logits[0].device)
        matched, labels, boxes = self._assign(torch.cat(anchors), samples)
        lengths = [len(level) for level in anchors]
        loss_cls, loss_bbox = logits[0].new_zeros(()), logits[0].new_zeros(())
        for level, found, label, box in zip(
            range(len(logits)), *(x.split(lengths, dim=1) for x in (matched, labels, boxes)), strict=True
        ):
            loss_cls = loss_cls + self._loss_of_classes(logits[level], found, label)
            image, place = (found >= 0).nonzero(as_tuple=True)
            deltas = self.anchors.rows(outputs.deltas[level].float(), image, place)
            goal = encode(anchors[level][place], box[image, place], STDS)
            loss_bbox = loss_bbox + (deltas - goal).abs().sum()
        count = (matched >= 0).sum(dim=1).clamp(min=1).sum().float()
        if self.training:  # in evaluation not all processes have the same number of batches
            all_reduce(count, "mean")
        return {"loss_cls": loss_cls / count, "loss_bbox": loss_bbox / count}

    def candidates(self, outputs: DenseOutputs, sizes: Sequence[Sequence[int]]) -> list[Instances]:
        anchors = self.anchors([x.shape[2:] for x in outputs.logits], outputs.logits[0].device)
        return [
            Instances(*map(torch.cat, zip(*self._candidates(outputs, anchors, i, size), strict=True)))
            for i, size in enumerate(sizes)
        ]

    def batch_candidates(self, outputs: DenseOutputs, size: Sequence[int]) -> Instances:
        levels = best_of_levels(outputs, self.anchors, self.num_classes, self.max_per_level, size, STDS)
        boxes, logits, labels = (torch.cat(parts, dim=1) for parts in zip(*levels, strict=True))
        return Instances(boxes, logits.sigmoid().where(logits > self._least, -math.inf), labels)

    @property
    def _least(self) -> float:
        """Logit of the threshold of scores."""
        return math.log(self.score_threshold / (1 - self.score_threshold)) if self.score_threshold else -math.inf

    def _candidates(
        self, outputs: DenseOutputs, anchors: list[Tensor], image: int, size: Sequence[int]
    ) -> Iterator[Instances]:
        """Yield the best of one image, level by level."""
        for logits, deltas, level in zip(outputs.logits, outputs.deltas, anchors, strict=True):
            flat = logits[image].flatten().float()
            above = (flat > self._least).nonzero()[:, 0]
            best = flat[above].topk(min(self.max_per_level, len(above))).indices
            channel, cell = above[best] // logits[image, 0].numel(), above[best] % logits[image, 0].numel()
            place = cell * self.anchors.per_cell + channel // self.num_classes
            rows = self.anchors.rows(deltas, torch.full_like(place, image), place).float()
            boxes = clip(decode(level[place], rows, STDS), size)
            yield Instances(boxes, flat[above[best]].sigmoid(), channel % self.num_classes)

    def _assign(self, anchors: Tensor, samples: Sequence[Sample]) -> tuple[Tensor, Tensor, Tensor]:
        """Return what each anchor of each image has to find: ``match``, label and box, ``(N, n)`` and ``(N, n, 4)``."""
        found = []
        for sample in samples:
            boxes, labels, _ = objects_of(sample, self.training)
            matched = match(anchors, boxes, positive=0.5, negative=0.4, rescue=0.0)
            if len(boxes) == 0:
                boxes, labels = anchors.new_zeros(1, 4), labels.new_zeros(1)
            found.append((matched, labels[matched.clamp(min=0)], boxes[matched.clamp(min=0)]))
        stacked = [torch.stack(values) for values in zip(*found, strict=True)]
        return stacked[0], stacked[1], stacked[2]

    def _loss_of_classes(self, logits: Tensor, matched: Tensor, labels: Tensor) -> Tensor:
        """Sum the focal loss as if all were background, then put right the few anchors that are not."""
        ignored = self.anchors.rows(logits, *(matched == IGNORED).nonzero(as_tuple=True))
        image, place = (matched >= 0).nonzero(as_tuple=True)
        right = self.anchors.rows(logits, image, place).gather(1, labels[image, place][:, None])
        truth = torch.ones_like(right)
        correction = focal_loss(right, truth).sum() - focal_loss(right, 1 - truth).sum()
        return background_focal_loss(logits) - background_focal_loss(ignored) + correction
