"""Segmentation of medical volumes: one class per voxel."""

from densevit.tasks.medical.dataset import VolumeDataset
from densevit.tasks.medical.head import UNETRHead
from densevit.tasks.medical.inference import SlidingVolume
from densevit.tasks.medical.metric import VolumeDice
from densevit.tasks.medical.prediction import VolumePrediction
from densevit.tasks.medical.predictor import VolumePredictor

__all__ = ["SlidingVolume", "UNETRHead", "VolumeDataset", "VolumeDice", "VolumePrediction", "VolumePredictor"]
