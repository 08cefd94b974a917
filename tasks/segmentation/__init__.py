"""Semantic segmentation: one class per pixel."""

from densevit.tasks.segmentation.dataset import ADE20KDataset, SegDataset
from densevit.tasks.segmentation.fcn_head import FCNHead
from densevit.tasks.segmentation.fpn_head import FPNHead
from densevit.tasks.segmentation.inference import SlideInference, TestTimeAugment
from densevit.tasks.segmentation.metric import MeanIoU
from densevit.tasks.segmentation.normed_segformer_head import NormedSegFormerHead
from densevit.tasks.segmentation.prediction import SegPrediction
from densevit.tasks.segmentation.segformer_head import SegFormerHead
from densevit.tasks.segmentation.uper_head import UPerHead

__all__ = [
    "ADE20KDataset",
    "FCNHead",
    "FPNHead",
    "MeanIoU",
    "NormedSegFormerHead",
    "SegDataset",
    "SegFormerHead",
    "SegPrediction",
    "SlideInference",
    "TestTimeAugment",
    "UPerHead",
]
