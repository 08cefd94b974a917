"""Semantic segmentation: one class per pixel."""

from densevit.tasks.segmentation.dataset import ADE20KDataset, SegDataset
from densevit.tasks.segmentation.inference import SlideInference, TestTimeAugment
from densevit.tasks.segmentation.metric import MeanIoU
from densevit.tasks.segmentation.prediction import SegPrediction
from densevit.tasks.segmentation.segformer_head import SegFormerHead

__all__ = [
    "ADE20KDataset",
    "MeanIoU",
    "SegDataset",
    "SegFormerHead",
    "SegPrediction",
    "SlideInference",
    "TestTimeAugment",
]
