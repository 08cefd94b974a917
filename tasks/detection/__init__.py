"""Detection and instance segmentation: a box, a class, a score and perhaps a mask for each object."""

from densevit.tasks.detection.cascade_head import CascadeMaskRCNNHead
from densevit.tasks.detection.dataset import Coco2017Dataset, CocoDataset
from densevit.tasks.detection.inference import DetectionTTA
from densevit.tasks.detection.mask_rcnn_head import MaskRCNNHead
from densevit.tasks.detection.metric import CocoMetric
from densevit.tasks.detection.prediction import DetPrediction
from densevit.tasks.detection.retina_head import RetinaHead

__all__ = [
    "CascadeMaskRCNNHead",
    "Coco2017Dataset",
    "CocoDataset",
    "CocoMetric",
    "DetPrediction",
    "DetectionTTA",
    "MaskRCNNHead",
    "RetinaHead",
]
