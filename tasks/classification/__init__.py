"""Image classification: one class per image."""

from densevit.tasks.classification.cifar import CIFARDataset
from densevit.tasks.classification.dataset import ImageFolderDataset, ImageNetDataset
from densevit.tasks.classification.head import ClassificationHead
from densevit.tasks.classification.metric import Accuracy
from densevit.tasks.classification.prediction import ClassPrediction

__all__ = [
    "Accuracy",
    "CIFARDataset",
    "ClassPrediction",
    "ClassificationHead",
    "ImageFolderDataset",
    "ImageNetDataset",
]
