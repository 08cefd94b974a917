"""How often clips are classified correctly."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from densevit.engine.accuracy import Accuracy, class_of
from densevit.registry import METRICS
from densevit.structures import Sample


@METRICS.register_module()
class ClipAccuracy(Accuracy):
    """Accuracy of videos and, where they have several views, that of single views: ``view_top1``."""

    def process(self, data_batch: Sequence[Sample], data_samples: Sequence[Any]) -> None:
        """Count the hits of a batch of `ClipPrediction`, of videos and of their views."""
        super().process(data_batch, data_samples)
        assert self.counts is not None, "counted just now"
        for sample, prediction in zip(data_batch, data_samples, strict=True):
            guesses = prediction.views.argmax(dim=1)
            self.counts["views"] += len(guesses)
            self.counts["view_hits"] += (guesses == class_of(sample.target.label)).sum()

    def compute_metrics(self, results: list[dict[str, Tensor]]) -> dict[str, float]:
        """Return the results of one set of counts."""
        counts = results[0]
        scores = super().compute_metrics(results)
        if counts["views"] > counts["truth"].sum():
            scores["view_top1"] = (counts["view_hits"] / counts["views"]).item()
        return scores

    def _zeros(self) -> dict[str, Tensor]:
        return {**super()._zeros(), **{name: torch.zeros((), dtype=torch.int64) for name in ("views", "view_hits")}}
