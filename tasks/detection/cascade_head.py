"""Cascade Mask R-CNN: three heads for boxes, each trained on better ones that the head before made.

Paper: https://arxiv.org/abs/1712.00726. The heads are those that https://arxiv.org/abs/2112.01526 uses for detection.
"""

from collections.abc import Sequence

from densevit.features import Specs
from densevit.registry import HEADS
from densevit.tasks.detection.box_head import BoxHead
from densevit.tasks.detection.mask_head import MaskHead
from densevit.tasks.detection.mask_rcnn_head import TwoStageHead
from densevit.tasks.detection.roi_head import RoIHead
from densevit.tasks.detection.roi_pool import RoIPool
from densevit.tasks.detection.rpn import RPNHead

# Of each head for boxes: the IoU from which on a proposal is an object, and the divisors of a box's four numbers.
STAGES = (
    (0.5, (0.1, 0.1, 0.2, 0.2)),
    (0.6, (1 / 20, 1 / 20, 1 / 10, 1 / 10)),
    (0.7, (1 / 30, 1 / 30, 1 / 15, 1 / 15)),
)


@HEADS.register_module()
class CascadeMaskRCNNHead(TwoStageHead):
    """Heads of four convolutions with batch norm and one layer; boxes are class-agnostic, scores are averaged.

    Parameters are named as in mmdetection, `roi_head.bbox_head.N` those of the heads for boxes.

    Args:
        specs: Levels of the neck, fine to coarse.
        num_classes: Number of classes, without background.
        anchor_scales: Sides of square anchors in strides.
        anchor_ratios: Heights over widths of anchors.
        rpn_channels: Width of the proposal network.
        rpn_convs: Number of its convolutions before the last ones.
        rpn_samples: Anchors of an image that give a loss, at most.
        roi_samples: Proposals of an image that give a loss, at most.
        box_convs: Convolutions of a head for boxes.
        fc_channels: Width of its layer.
        mask_channels: Width of the head for masks.
        mask_convs: Its convolutions; None predicts boxes only.
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
        rpn_convs: int = 2,
        rpn_samples: int = 256,
        roi_samples: int = 512,
        box_convs: int = 4,
        fc_channels: int = 1024,
        mask_channels: int = 256,
        mask_convs: int | None = 4,
        score_threshold: float = 0.05,
        nms_iou: float = 0.5,
        max_per_image: int = 100,
    ) -> None:
        width = specs[0].channels
        rpn = RPNHead(specs, rpn_channels, rpn_convs, anchor_scales, anchor_ratios, rpn_samples)
        boxes = [
            BoxHead(width, num_classes, fc_channels, num_fcs=1, num_convs=box_convs, class_agnostic=True, stds=stds)
            for _, stds in STAGES
        ]
        masks = None
        if mask_convs is not None:
            masks = MaskHead(width, num_classes, mask_channels, mask_convs, norm=True)
        ious = [iou for iou, _ in STAGES]
        roi = RoIHead(RoIPool(specs), boxes, ious, rescue=None, mask_head=masks, samples=roi_samples)
        super().__init__(rpn, roi, num_classes, score_threshold, nms_iou, max_per_image)
