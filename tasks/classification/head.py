"""Linear classifier of images."""

from collections.abc import Sequence

from torch import Tensor

from densevit.classifier import LinearClassifier
from densevit.data.class_prediction import ClassPrediction
from densevit.registry import HEADS
from densevit.structures import Meta


@HEADS.register_module()
class ClassificationHead(LinearClassifier):
    """The classifier of images."""

    def predict(self, outputs: Tensor, metas: Sequence[Meta]) -> list[ClassPrediction]:
        """Return the probabilities of the classes for each sample."""
        return [ClassPrediction(scores) for scores in self.scores(outputs).cpu()]
