"""The second stage of detectors: from proposals to classes, better boxes and masks.

Papers: https://arxiv.org/abs/1703.06870; https://arxiv.org/abs/1712.00726 (several heads for boxes, one after another)
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from densevit.errors import ConfigError
from densevit.features import Losses, Maps
from densevit.structures import Sample
from densevit.tasks.detection.box_coder import decode
from densevit.tasks.detection.box_head import BoxHead
from densevit.tasks.detection.head import Instances, clip, has_area, objects_of, rescale
from densevit.tasks.detection.mask_head import MaskHead, mask_targets
from densevit.tasks.detection.matching import match
from densevit.tasks.detection.roi_pool import RoIPool
from densevit.tasks.detection.sampling import sample

POSITIVE_SHARE = 0.25


class Objects(NamedTuple):
    """Ground truth of one image: ``boxes`` ``(m, 4)`` and ``labels`` ``(m,)``, and where the masks are."""

    boxes: Tensor
    labels: Tensor
    places: Tensor
    sample: Sample

    @classmethod
    def of(cls, sample: Sample, training: bool) -> "Objects":
        """Return what `objects_of` does, without boxes of no area, which cannot be encoded."""
        boxes, labels, places = objects_of(sample, training)
        solid = has_area(boxes)
        return cls(boxes[solid], labels[solid], places[solid], sample)


class RoIs(NamedTuple):
    """Proposals of one image ``(n, 4)``, and which object each has to find, as `match` says."""

    boxes: Tensor
    matched: Tensor


class RoIHead(nn.Module):
    """Heads for boxes, each of which reads what the one before made of the proposals, and one for masks.

    Args:
        pool: Reads the maps.
        bbox_heads: One, or several for a cascade. Their names are then numbered.
        ious: For each, the IoU with an object from which on a proposal is to find it.
        rescue: As of `match`.
        mask_head: None to predict boxes only.
        samples: Proposals of an image that give a loss, at most; up to a quarter of them have an object.

    Raises:
        ConfigError: ``samples`` is below 1.
    """

    def __init__(
        self,
        pool: RoIPool,
        bbox_heads: Sequence[BoxHead],
        ious: Sequence[float],
        rescue: float | None,
        mask_head: MaskHead | None,
        samples: int,
    ) -> None:
        super().__init__()
        if samples < 1:
            raise ConfigError(f"roi_samples must be at least 1, not {samples}")
        self.pool, self.ious, self.rescue, self.samples = pool, tuple(ious), rescue, samples
        self.bbox_head = bbox_heads[0] if len(bbox_heads) == 1 else nn.ModuleList(bbox_heads)
        self.mask_head = mask_head

    @property
    def stages(self) -> list[BoxHead]:
        """The heads for boxes."""
        return [module for module in self.bbox_head.modules() if isinstance(module, BoxHead)]

    def loss(self, maps: Maps, proposals: Sequence[Tensor], objects: Sequence[Objects]) -> Losses:
        """Return the losses of all heads, for proposals ``(n, 4)`` of each image to which objects are added.

        In evaluation images may have no masks: there is no loss of them then.
        """
        sampled = [self._sample(*pair) for pair in zip(proposals, objects, strict=True)]
        losses = self._loss_of_boxes(maps, sampled, objects)
        masked = all(each.sample.target.masks is not None for each in objects)
        if self.mask_head is not None and (masked or self.training):  # in evaluation the metric warns of it
            losses["loss_mask"] = self._loss_of_masks(self.mask_head, maps, sampled, objects)
        return losses

    def _sample(self, proposals: Tensor, objects: Objects) -> RoIs:
        matched = match(proposals, objects.boxes, self.ious[0], self.ious[0], self.rescue)
        matched = torch.cat([torch.arange(len(objects.boxes), device=matched.device), matched])
        picked = sample(matched, self.samples, POSITIVE_SHARE, random=self.training)
        return RoIs(torch.cat([objects.boxes, proposals])[picked], matched[picked])

    def _loss_of_boxes(self, maps: Maps, rois: Sequence[RoIs], objects: Sequence[Objects]) -> Losses:
        losses: Losses = {}
        count = len(self.stages)
        for stage, head in enumerate(self.stages):
            pooled = self.pool(maps, [each.boxes for each in rois], head.size)
            if count > 1 and pooled.requires_grad:  # else the maps would learn from boxes that many times as fast
                pooled.register_hook(lambda gradient: gradient / count)
            outputs = head(pooled)
            terms = head.loss(outputs, *_assigned(rois, objects, head.num_classes))
            losses |= {f"{name}_stage{stage}" if count > 1 else name: value for name, value in terms.items()}
            if stage + 1 < count:
                rois = self._next(stage, rois, outputs[1], objects)
        return losses

    def _next(self, stage: int, rois: Sequence[RoIs], deltas: Tensor, objects: Sequence[Objects]) -> list[RoIs]:
        """Return the boxes that a stage made, matched for the one after it."""
        found = []
        for each, offsets, truth in zip(rois, deltas.split([len(r.boxes) for r in rois]), objects, strict=True):
            boxes = self.stages[stage].refine(each.boxes, offsets, truth.sample.meta.input_size)
            boxes = boxes[has_area(boxes)]
            iou = self.ious[stage + 1]
            found.append(RoIs(boxes, match(boxes, truth.boxes, iou, iou, self.rescue)))
        return found

    def _loss_of_masks(self, head: MaskHead, maps: Maps, rois: Sequence[RoIs], objects: Sequence[Objects]) -> Tensor:
        inside = [RoIs(each.boxes[each.matched >= 0], each.matched[each.matched >= 0]) for each in rois]
        targets = [_mask_targets(*pair) for pair in zip(inside, objects, strict=True)]
        labels = [truth.labels[each.matched] for each, truth in zip(inside, objects, strict=True)]
        logits = head(self.pool(maps, [each.boxes for each in inside], head.size))
        return head.loss(logits, torch.cat(labels), torch.cat(targets))

    def candidates(
        self, maps: Maps, proposals: Sequence[Tensor], sizes: Sequence[Sequence[int]], threshold: float
    ) -> list[Instances]:
        """Return the boxes of all classes whose score, the mean of all stages, is above a threshold."""
        boxes, counts = list(proposals), [len(each) for each in proposals]
        scores: list[Tensor] = []
        for stage, head in enumerate(self.stages):
            logits, deltas = head(self.pool(maps, boxes, head.size))
            scores.append(logits.softmax(dim=1)[:, :-1])
            split = deltas.split(counts)
            if stage + 1 < len(self.stages):
                boxes = [head.refine(*each) for each in zip(boxes, split, sizes, strict=True)]
        mean = torch.stack(scores).mean(dim=0).split(counts)
        return [head.detect(*each, threshold) for each in zip(boxes, mean, split, sizes, strict=True)]

    def masks(self, maps: Maps, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> list[Tensor] | None:
        """Return probabilities ``(n, 28, 28)`` of each image's boxes ``(n, 4)``; None without a head for masks."""
        if self.mask_head is None:
            return None
        logits = self.mask_head(self.pool(maps, boxes, self.mask_head.size))
        chosen = self.mask_head.of_class(logits, torch.cat(list(labels)))
        return list(chosen.sigmoid().split([len(each) for each in boxes]))

    def batch_candidates(
        self, maps: Maps, boxes: Tensor, filled: Tensor, size: Sequence[int], threshold: float
    ) -> Instances:
        """Return `candidates` of the whole batch: a place for each proposal ``(N, n, 4)`` and class.

        Where ``filled`` ``(N, n)`` does not say that there is a proposal, or the threshold is missed, scores are -inf.
        It goes into a graph, see `Head.export`.
        """
        scores: list[Tensor] = []
        for stage, head in enumerate(self.stages):
            pooled = self.pool.batch(maps, boxes, head.size)
            logits, deltas = (x.unflatten(0, (-1, boxes.shape[1])) for x in head(pooled))
            scores.append(logits.softmax(dim=-1)[..., :-1])
            if stage + 1 < len(self.stages):
                boxes = clip(decode(boxes, deltas[:, :, 0], head.stds), size)
        mean = torch.stack(scores).mean(dim=0)
        mean = mean.where((mean > threshold) & filled[..., None], -math.inf)
        boxes = clip(decode(boxes[:, :, None], deltas, head.stds), size).expand(-1, -1, mean.shape[-1], -1)
        labels = torch.arange(mean.shape[-1], device=mean.device).expand_as(mean)
        return Instances(boxes.flatten(1, 2), mean.flatten(1), labels.flatten(1))

    def batch_masks(self, maps: Maps, boxes: Tensor, labels: Tensor) -> Tensor | None:
        """Return `masks` of the whole batch, of boxes ``(N, n, 4)`` and labels ``(N, n)``."""
        if self.mask_head is None:
            return None
        logits = self.mask_head(self.pool.batch(maps, boxes, self.mask_head.size))
        return self.mask_head.of_class(logits, labels.flatten()).sigmoid().unflatten(0, (-1, boxes.shape[1]))


def _assigned(rois: Sequence[RoIs], objects: Sequence[Objects], background: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return proposals ``(n, 4)`` and labels ``(n,)`` of all images, and for those with an object its box."""
    labels, goals = [], []
    for each, truth in zip(rois, objects, strict=True):
        inside = each.matched >= 0
        label = torch.full_like(each.matched, background)
        label[inside] = truth.labels[each.matched[inside]]
        labels.append(label)
        goals.append(truth.boxes[each.matched[inside]])
    return torch.cat([each.boxes for each in rois]), torch.cat(labels), torch.cat(goals)


def _mask_targets(rois: RoIs, objects: Objects) -> Tensor:
    target, meta = objects.sample.target, objects.sample.meta
    if target.masks is None:
        raise ConfigError(
            f"{meta.path} has no masks to train on: set masks=True in the dataset, or mask_convs=None in the head"
        )
    masks = target.masks.as_subclass(Tensor)
    boxes = rescale(rois.boxes, meta.input_size, masks.shape[1:])
    return mask_targets(masks, objects.places[rois.matched], boxes)
