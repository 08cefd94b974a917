"""A classified image."""

import numpy as np

from densevit.data.class_prediction import ClassPrediction
from densevit.predictor import Result
from densevit.web.views.picture_size import read_for_display


class ClassificationView:
    """The image in the size in which it is shown, and its probabilities.

    Args:
        result: Of a classifier of images.

    Raises:
        DataError: The file cannot be read again.
    """

    def __init__(self, result: Result) -> None:
        self.image, self.size = read_for_display(result)
        self.scores = probabilities(result.prediction, result.classes)

    def picture(self) -> np.ndarray:
        """Return the image ``(H, W, 3)``, uint8 RGB."""
        return self.image


def probabilities(prediction: ClassPrediction, classes: list[str]) -> dict[str, float]:
    """Return the probabilities of the most probable classes, the first first."""
    return {classes[i]: score for i, score in prediction.best()}
