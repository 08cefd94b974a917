"""Image classification: one class per image."""

from densevit.data.class_prediction import ClassPrediction
from densevit.engine.accuracy import Accuracy
from densevit.tasks.classification.cifar import CIFARDataset
from densevit.tasks.classification.dataset import ImageFolderDataset, ImageNetDataset
from densevit.tasks.classification.head import ClassificationHead

__all__ = [
    "Accuracy",
    "CIFARDataset",
    "ClassPrediction",
    "ClassificationHead",
    "ImageFolderDataset",
    "ImageNetDataset",
]
