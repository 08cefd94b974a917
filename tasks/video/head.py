"""Linear classifier of clips."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from densevit.classifier import LinearClassifier
from densevit.features import Losses
from densevit.registry import HEADS
from densevit.structures import Meta, Sample
from densevit.tasks.video.prediction import ClipPrediction


@HEADS.register_module()
class VideoHead(LinearClassifier):
    """The classifier of clips. Its outputs are logits ``(N, K)``; `ClipViews` makes them ``(N, V, K)``."""

    test_time_augment = "ClipViews"

    def loss(self, outputs: Tensor, samples: Sequence[Sample]) -> Losses:
        """Return the loss of a clip; that of several views is of their mean probability."""
        if outputs.ndim == 3:
            views = outputs.float()
            if self.sigmoid:  # by logarithms: probabilities are rounded to 0 and 1
                outputs = F.logsigmoid(views).logsumexp(dim=1) - F.logsigmoid(-views).logsumexp(dim=1)
            else:
                outputs = views.log_softmax(dim=-1).logsumexp(dim=1)  # but for a summand, which makes no difference
        return super().loss(outputs, samples)

    def predict(self, outputs: Tensor, metas: Sequence[Meta]) -> list[ClipPrediction]:
        """Return the probabilities of the classes for each video."""
        views = self.scores(outputs).cpu()
        if views.ndim == 2:
            views = views[:, None]
        return [ClipPrediction(of_one.mean(dim=0), of_one) for of_one in views]
