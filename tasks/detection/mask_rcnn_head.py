"""Mask R-CNN: proposals from a pyramid, then class, box and mask of each.

Papers: https://arxiv.org/abs/1506.01497 and https://arxiv.org/abs/1703.06870
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from densevit.features import Features, Losses, Maps, Specs
from densevit.registry import HEADS
from densevit.structures import Sample
from densevit.tasks.detection import detectron2_keys
from densevit.tasks.detection.anchors import DenseOutputs
from densevit.tasks.detection.box_head import BoxHead
from densevit.tasks.detection.head import DetectionHead, Instances
from densevit.tasks.detection.mask_head import MaskHead
from densevit.tasks.detection.roi_head import Objects, RoIHead
from densevit.tasks.detection.roi_pool import RoIPool
from densevit.tasks.detection.rpn import RPNHead


class TwoStageOutputs(NamedTuple):
    """What can be said before there are proposals: the maps, and those of the proposal network.

    ``low`` is the type that autocast computed them in, if it did. The second stage runs later, and in the same.
    """

    maps: Maps
    dense: DenseOutputs
    low: torch.dtype | None

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context that the outputs were computed in."""
        return torch.autocast(self.maps[0].device.type, self.low, enabled=self.low is not None)


class TwoStageHead(DetectionHead):
    """A proposal network, and heads that read its proposals.

    Args:
        rpn_head: Makes the proposals.
        roi_head: Reads them.
        num_classes: Number of classes, without background.
        score_threshold: Candidates of lower scores are dropped.
        nms_iou: Of two candidates of one class that overlap more, the better stays.
        max_per_image: Number of objects in an image, at most.
    """

    # What the papers, and those of backbones, put before it.
    usual_neck: ClassVar[dict[str, Any]] = {"type": "FPN", "num_outs": 5}
    usual_strides: ClassVar[tuple[int, ...]] = (4, 8, 16, 32, 64)

    def __init__(
        self,
        rpn_head: RPNHead,
        roi_head: RoIHead,
        num_classes: int,
        score_threshold: float,
        nms_iou: float,
        max_per_image: int,
    ) -> None:
        super().__init__(num_classes, score_threshold, nms_iou, max_per_image)
        self.rpn_head, self.roi_head = rpn_head, roi_head

    def forward(self, features: Features) -> TwoStageOutputs:
        """Return what the proposal network says of every level, and the maps for what follows."""
        device = features.maps[0].device.type
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        return TwoStageOutputs(features.maps, self.rpn_head(features.maps), low)

    def loss(self, outputs: TwoStageOutputs, samples: Sequence[Sample]) -> Losses:
        """Return the losses of both stages."""
        objects = [Objects.of(sample, self.training) for sample in samples]
        losses = self.rpn_head.loss(outputs.dense, outputs.maps, [each.boxes for each in objects])
        proposals = self.rpn_head.proposals(outputs.dense, [sample.meta.input_size for sample in samples])
        with outputs.autocast():
            return losses | self.roi_head.loss(outputs.maps, proposals, objects)

    def candidates(self, outputs: TwoStageOutputs, sizes: Sequence[Sequence[int]]) -> list[Instances]:
        proposals = self.rpn_head.proposals(outputs.dense, sizes)
        with outputs.autocast():
            return self.roi_head.candidates(outputs.maps, proposals, sizes, self.score_threshold)

    def masks(self, outputs: TwoStageOutputs, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> list[Tensor] | None:
        with outputs.autocast():
            return self.roi_head.masks(outputs.maps, boxes, labels)

    def batch_candidates(self, outputs: TwoStageOutputs, size: Sequence[int]) -> Instances:
        proposals = self.rpn_head.batch_proposals(outputs.dense, size)
        return self.roi_head.batch_candidates(outputs.maps, *proposals, size, self.score_threshold)

    def batch_masks(self, outputs: TwoStageOutputs, found: Instances) -> Tensor | None:
        return self.roi_head.batch_masks(outputs.maps, found.boxes, found.labels)

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return detectron2_keys.translate(state)


@HEADS.register_module()
class MaskRCNNHead(TwoStageHead):
    """Parameters are named as in mmdetection.

    Args:
        specs: Levels of the neck, fine to coarse.
        num_classes: Number of classes, without background.
        anchor_scales: Sides of square anchors in strides.
        anchor_ratios: Heights over widths of anchors.
        rpn_channels: Width of the proposal network.
        rpn_convs: Number of its convolutions before the last ones.
        rpn_samples: Anchors of an image that give a loss, at most.
        roi_samples: Proposals of an image that give a loss, at most.
        fc_channels: Width of the head for boxes.
        mask_channels: Width of the head for masks.
        mask_convs: Its convolutions; None predicts boxes only, which is Faster R-CNN.
        class_agnostic: Predict one box for all classes.
        class_agnostic_mask: Predict one mask for all classes.
        score_threshold: Candidates of lower scores are dropped.
        nms_iou: Of two candidates of one class that overlap more, the better stays.
        max_per_image: Number of objects in an image, at most.

    Raises:
        ConfigError: Settings out of range.
    """

    def __init__(
        self,
        specs: Specs,
        num_classes: int,
        anchor_scales: Sequence[float] = (8.0,),
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        rpn_channels: int = 256,
        rpn_convs: int = 1,
        rpn_samples: int = 256,
        roi_samples: int = 512,
        fc_channels: int = 1024,
        mask_channels: int = 256,
        mask_convs: int | None = 4,
        class_agnostic: bool = False,
        class_agnostic_mask: bool = False,
        score_threshold: float = 0.05,
        nms_iou: float = 0.5,
        max_per_image: int = 100,
    ) -> None:
        width = specs[0].channels
        rpn = RPNHead(specs, rpn_channels, rpn_convs, anchor_scales, anchor_ratios, rpn_samples)
        boxes = BoxHead(width, num_classes, fc_channels, class_agnostic=class_agnostic)
        masks = None
        if mask_convs is not None:
            masks = MaskHead(width, num_classes, mask_channels, mask_convs, class_agnostic_mask)
        roi = RoIHead(RoIPool(specs), [boxes], ious=[0.5], rescue=0.5, mask_head=masks, samples=roi_samples)
        super().__init__(rpn, roi, num_classes, score_threshold, nms_iou, max_per_image)
