"""Segmentation metrics."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from densevit.engine.confusion import count_pairs, draw_confusion, sum_over_processes
from densevit.registry import METRICS
from densevit.structures import Sample
from densevit.tables import print_table
from densevit.tasks.segmentation.prediction import SegPrediction


@METRICS.register_module()
class MeanIoU(BaseMetric):
    """mIoU, mAcc, aAcc and mDice between 0 and 1, from one confusion matrix over the whole set.

    The matrix is added up as predictions arrive and summed over the processes once, in integers: the result does
    not depend on batch size or number of processes. Classes that are in neither truth nor prediction are left out
    of the means, as everywhere in the field.

    Args:
        ignore_index: Label of pixels that do not count.
    """

    score_name = "mean IoU"  # of batch_scores
    rising = ("mIoU", "mAcc", "aAcc", "mDice")
    default_prefix = "segmentation"  # quiets mmengine, which wants one; `evaluate` names the means without it

    def __init__(self, ignore_index: int = 255) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.matrix: Tensor | None = None
        self.confusion: Tensor | None = None
        self.batch_scores: list[float] = []

    def process(self, data_batch: Sequence[Sample], data_samples: Sequence[SegPrediction]) -> None:
        """Count (truth, prediction) pairs of pixels."""
        self.batch_scores = [
            self.add(sample.target.mask.as_subclass(Tensor), prediction.mask)
            for sample, prediction in zip(data_batch, data_samples, strict=True)
        ]

    def add(self, truth: Tensor, prediction: Tensor) -> float:
        """Count the pixels of one image, and return its own mean IoU; both are ``(H, W)`` class indices."""
        count = self._class_count()
        keep = truth != self.ignore_index
        if self.matrix is None:
            self.matrix = torch.zeros(count, count, dtype=torch.int64)
        pairs = count_pairs(truth[keep], prediction[keep], count)
        self.matrix += pairs
        hit = pairs.diagonal()
        return (hit / (pairs.sum(0) + pairs.sum(1) - hit)).nanmean().item()

    def evaluate(self, size: int) -> dict[str, float]:
        """Sum over the processes, print the table of classes, return the means."""
        matrix = torch.zeros(self._class_count(), self._class_count(), dtype=torch.int64)
        if self.matrix is not None:
            matrix += self.matrix
        self.matrix = None
        return self.compute_metrics([sum_over_processes(matrix)])

    def compute_metrics(self, results: list[Tensor]) -> dict[str, float]:
        """Return the means of one matrix ``(truth, prediction)``."""
        self.confusion, matrix = results[0], results[0].double()
        hit, truth, guess = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        iou, acc, dice = hit / (truth + guess - hit), hit / truth, 2 * hit / (truth + guess)
        names = self.dataset_meta["classes"]
        columns = [(100 * v).tolist() for v in (iou, acc, dice, truth / truth.sum())]
        rows = list(zip(names, *columns, strict=True))
        print_table("classes", ["class", "IoU %", "Acc %", "Dice %", "pixels %"], rows)
        means = {"mIoU": iou.nanmean(), "mAcc": acc.nanmean(), "aAcc": hit.sum() / truth.sum(), "mDice": dice.nanmean()}
        return {name: value.item() for name, value in means.items()}

    def pictures(self) -> dict[str, np.ndarray]:
        """Return the confusions that were counted last."""
        if self.confusion is None:
            return {}
        return {"confusion": draw_confusion(self.confusion, self.dataset_meta["classes"])}

    def _class_count(self) -> int:
        return len(self.dataset_meta["classes"])
