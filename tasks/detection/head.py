"""What heads for detection share: from candidates in one or several views of an image to its objects."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from densevit.errors import ConfigError
from densevit.features import Head, Specs
from densevit.structures import Meta, Sample
from densevit.tasks.detection.batch_suppression import suppress
from densevit.tasks.detection.masks import paste
from densevit.tasks.detection.prediction import DetPrediction


class Instances(NamedTuple):
    """Of one image: ``boxes`` ``(n, 4)`` in pixels of the network's input, ``scores`` and ``labels`` ``(n,)``."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class View(NamedTuple):
    """What a head gave for a batch scaled to ``size`` ``(h, w)`` and perhaps mirrored."""

    outputs: Any
    size: tuple[int, ...]
    flipped: bool = False

    def boxes_from(self, boxes: Tensor, size: Sequence[int]) -> Tensor:
        """Return boxes of this view as boxes of a view of ``size`` that is not mirrored."""
        return rescale(_mirrored(boxes, self.size) if self.flipped else boxes, self.size, size)

    def boxes_to(self, boxes: Tensor, size: Sequence[int]) -> Tensor:
        """Return boxes of a view of ``size`` that is not mirrored as boxes of this one."""
        boxes = rescale(boxes, size, self.size)
        return _mirrored(boxes, self.size) if self.flipped else boxes


class DetectionHead(Head):
    """Suppresses what was found twice, and brings the rest to the original size.

    Args:
        num_classes: Number of classes, without background.
        score_threshold: Candidates of lower scores are dropped.
        nms_iou: Of two candidates of one class that overlap more, the better stays.
        max_per_image: Number of objects in an image, at most.

    Attributes:
        usual_neck: Config of the neck that goes between it and a hierarchical backbone.
        usual_strides: Of the levels that this neck gives.
        test_time_augment: What ``--tta`` runs it by.

    Raises:
        ConfigError: A threshold is not in 0..1, or ``max_per_image`` below 1.
    """

    usual_neck: ClassVar[dict[str, Any]]
    usual_strides: ClassVar[tuple[int, ...]]
    test_time_augment = "DetectionTTA"

    def __init__(
        self, num_classes: int, score_threshold: float = 0.05, nms_iou: float = 0.5, max_per_image: int = 100
    ) -> None:
        super().__init__()
        if not 0 <= score_threshold < 1 or not 0 < nms_iou <= 1 or max_per_image < 1:
            raise ConfigError(
                "score_threshold is in [0, 1), nms_iou in (0, 1] and max_per_image at least 1, "
                f"not {score_threshold}, {nms_iou} and {max_per_image}"
            )
        self.num_classes = num_classes
        self.score_threshold, self.nms_iou, self.max_per_image = score_threshold, nms_iou, max_per_image

    @abstractmethod
    def candidates(self, outputs: Any, sizes: Sequence[Sequence[int]]) -> list[Instances]:
        """Return, for each image of ``sizes`` ``(h, w)``, what may be objects, clipped to the image."""

    def masks(self, outputs: Any, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> list[Tensor] | None:
        """Return probabilities ``(n, M, M)`` that pixels of the boxes belong to the object; None if there are none."""
        return None

    def predict(self, outputs: Any, metas: Sequence[Meta]) -> list[DetPrediction]:
        """Return the objects of each image; ``outputs`` may be those of several views of one batch."""
        sizes = [meta.input_size for meta in metas]
        views = outputs if isinstance(outputs, list) else [View(outputs, sizes[0])]
        found = [self.candidates(view.outputs, [view.size] * len(metas)) for view in views]
        kept = []
        for i, size in enumerate(sizes):
            moved = [
                each[i]._replace(boxes=v.boxes_from(each[i].boxes, size)) for v, each in zip(views, found, strict=True)
            ]
            kept.append(self._suppress(Instances(*map(torch.cat, zip(*moved, strict=True)))))
        masks = self._mean_masks(views, kept, sizes)
        return [
            _prediction(instances, meta, None if masks is None else masks[i])
            for i, (instances, meta) in enumerate(zip(kept, metas, strict=True))
        ]

    @abstractmethod
    def batch_candidates(self, outputs: Any, size: Sequence[int]) -> Instances:
        """Return `candidates` of the whole batch, ``(N, n, 4)`` and ``(N, n)``, -inf for scores of what is none.

        Boxes are those of equal inputs of ``size`` ``(h, w)``. It goes into a graph, see `Head.export`.
        """

    def batch_masks(self, outputs: Any, found: Instances) -> Tensor | None:
        """Return `masks` of the objects of the whole batch, ``(N, n, M, M)``."""
        return None

    def export(self, outputs: Any, space: Sequence[int]) -> dict[str, Tensor]:
        """Return "count" ``(N,)``, and "boxes" ``(N, n, 4)``, "scores", "labels" ``(N, n)`` of up to n objects.

        Boxes are in pixels of the input. With a head for masks, "masks" ``(N, n, M, M)`` are the probabilities in the
        boxes. Of each image the first ``count`` are objects, the best first; the rest is 0.
        """
        candidates = self.batch_candidates(outputs, space)
        found = Instances(*suppress(*candidates, space, self.nms_iou, self.max_per_image))
        masks = self.batch_masks(outputs, found)
        filled = found.scores > -math.inf
        values = {"boxes": found.boxes, "scores": found.scores, "labels": found.labels, "masks": masks}
        return {"count": filled.sum(dim=1)} | {
            name: value.where(filled.view(*filled.shape, *[1] * (value.ndim - 2)), 0)
            for name, value in values.items()
            if value is not None
        }

    def _suppress(self, found: Instances) -> Instances:
        kept = batched_nms(found.boxes, found.scores, found.labels, self.nms_iou)[: self.max_per_image]
        return Instances(*(values[kept] for values in found))

    def _mean_masks(
        self, views: Sequence[View], kept: Sequence[Instances], sizes: Sequence[Sequence[int]]
    ) -> list[Tensor] | None:
        total: list[Tensor] | None = None
        for view in views:
            boxes = [view.boxes_to(each.boxes, size) for each, size in zip(kept, sizes, strict=True)]
            masks = self.masks(view.outputs, boxes, [each.labels for each in kept])
            if masks is None:
                return None
            masks = [m.flip(-1) / len(views) if view.flipped else m / len(views) for m in masks]
            total = masks if total is None else [a + b for a, b in zip(total, masks, strict=True)]
        return total


def _prediction(found: Instances, meta: Meta, masks: Tensor | None) -> DetPrediction:
    boxes = clip(rescale(found.boxes, meta.input_size, meta.original_size), meta.original_size)
    boxes, scores, labels = boxes.detach().float().cpu(), found.scores.detach().float().cpu(), found.labels.cpu()
    height, width = meta.original_size
    drawn = None if masks is None else paste(masks.detach().float().cpu(), boxes, height, width)
    return DetPrediction(boxes, scores, labels, (height, width), drawn)


def objects_of(sample: Sample, training: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes ``(n, 4)`` in pixels of the network's input, labels ``(n,)`` and places ``(n,)`` in the target.

    Crowds are left out. In evaluation targets have the size of the file, and are brought to that of the input.
    """
    target = sample.target
    single = (~target.crowd).nonzero()[:, 0]
    boxes = target.boxes[single]
    if not training:
        boxes = rescale(boxes, sample.meta.original_size, sample.meta.input_size)
    return boxes, target.labels[single], single


def rescale(boxes: Tensor, size: Sequence[int], new_size: Sequence[int]) -> Tensor:
    """Return boxes ``(n, 4)`` of an image of ``size`` as boxes of the same one at ``new_size``, both ``(h, w)``."""
    if tuple(size) == tuple(new_size):
        return boxes
    y, x = (new / old for new, old in zip(new_size, size, strict=True))
    return boxes * boxes.new_tensor([x, y, x, y])


def clip(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Return boxes ``(..., 4)`` cut to an image of ``size`` ``(h, w)``."""
    height, width = size
    return torch.stack([boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)], dim=-1).flatten(-2)


def has_area(boxes: Tensor) -> Tensor:
    """Say which of the boxes ``(..., 4)`` have one."""
    return (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)


def width_of(specs: Specs) -> int:
    """Return the channels of the levels, which detectors read with one set of convolutions.

    Raises:
        ConfigError: They differ.
    """
    widths = [spec.channels for spec in specs]
    if len(set(widths)) != 1:
        raise ConfigError(
            f"detectors want levels of one width, not {widths}: put model.neck=dict(type='FPN') before them"
        )
    return widths[0]


def _mirrored(boxes: Tensor, size: Sequence[int]) -> Tensor:
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([size[1] - x2, y1, size[1] - x1, y2], dim=1)
