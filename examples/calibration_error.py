# calibration_error.py
"""A metric of classifiers: how far they can be trusted."""

from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric

from densevit import METRICS
from densevit.data.class_prediction import ClassPrediction
from densevit.structures import Sample
from densevit.tables import print_table


@METRICS.register_module()
class CalibrationError(BaseMetric):
    """Mean difference between how sure a classifier is and how often it is right, "ECE".

    Paper: https://arxiv.org/abs/1706.04599

    Args:
        bins: Into how many equal parts the probabilities from 0 to 1 are split.
    """

    default_prefix = "classification"

    def __init__(self, bins: int = 10) -> None:
        super().__init__()
        self.bins = bins

    def process(self, data_batch: Sequence[Sample], data_samples: Sequence[ClassPrediction]) -> None:
        """Note for each sample how sure the prediction is, and whether it is right."""
        for sample, prediction in zip(data_batch, data_samples, strict=True):
            score, best = prediction.scores.max(dim=0)
            self.results.append((score.item(), bool(best == sample.target.label.cpu())))

    def compute_metrics(self, results: list[tuple[float, bool]]) -> dict[str, float]:
        """Return the error over the results of all processes, and print its parts."""
        sure, right = (np.array(values, dtype=float) for values in zip(*results, strict=True))
        part = np.minimum((self.bins * sure).astype(int), self.bins - 1)
        rows, error = [], 0.0
        for i in np.unique(part):
            inside = part == i
            error += inside.mean() * abs(sure[inside].mean() - right[inside].mean())
            rows.append((f"{i / self.bins:.1f}", 100 * sure[inside].mean(), 100 * right[inside].mean(), inside.sum()))
        print_table("how sure, how often right", ["from", "sure %", "right %", "samples"], rows)
        return {"ECE": float(error)}
