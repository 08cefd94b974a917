"""Semantic segmentation: one class per pixel."""

from densevit.tasks.segmentation.head import SegFormerHead
from densevit.tasks.segmentation.prediction import SegPrediction

__all__ = ["SegFormerHead", "SegPrediction"]
