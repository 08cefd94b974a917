"""Classification of video clips: one class per clip."""

from densevit.tasks.video.dataset import ClipDataset
from densevit.tasks.video.head import VideoHead
from densevit.tasks.video.inference import ClipViews
from densevit.tasks.video.metric import ClipAccuracy
from densevit.tasks.video.prediction import ClipPrediction

__all__ = ["ClipAccuracy", "ClipDataset", "ClipPrediction", "ClipViews", "VideoHead"]
