"""Segmentation metrics."""

from collections.abc import Sequence

import torch
from mmengine import dist
from mmengine.evaluator import BaseMetric
from torch import Tensor

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

    default_prefix = "segmentation"  # quiets mmengine, which wants one; `evaluate` names the means without it

    def __init__(self, ignore_index: int = 255) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.matrix: Tensor | None = None

    def process(self, data_batch: Sequence[Sample], data_samples: Sequence[SegPrediction]) -> None:
        """Count (truth, prediction) pairs of pixels."""
        for sample, prediction in zip(data_batch, data_samples, strict=True):
            self.add(sample.target.mask.as_subclass(Tensor), prediction.mask)

    def add(self, truth: Tensor, prediction: Tensor) -> None:
        """Count the pixels of one image; both are ``(H, W)`` class indices."""
        count = self._class_count()
        keep = truth != self.ignore_index
        cells = truth[keep].long() * count + prediction[keep].long()
        if self.matrix is None:
            self.matrix = torch.zeros(count, count, dtype=torch.int64)
        self.matrix += torch.bincount(cells, minlength=count**2).view(count, count)

    def evaluate(self, size: int) -> dict[str, float]:
        """Sum over the processes, print the table of classes, return the means."""
        matrix = torch.zeros(self._class_count(), self._class_count(), dtype=torch.int64)
        if self.matrix is not None:
            matrix += self.matrix
        self.matrix = None
        device = dist.get_comm_device(None) if dist.is_distributed() else matrix.device
        matrix = matrix.to(device)
        dist.all_reduce(matrix)
        return self.compute_metrics([matrix.cpu()])

    def compute_metrics(self, results: list[Tensor]) -> dict[str, float]:
        """Return the means of one matrix ``(truth, prediction)``."""
        matrix = results[0].double()
        hit, truth, guess = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        iou, acc, dice = hit / (truth + guess - hit), hit / truth, 2 * hit / (truth + guess)
        names = self.dataset_meta["classes"]
        columns = [(100 * v).tolist() for v in (iou, acc, dice, truth / truth.sum())]
        rows = list(zip(names, *columns, strict=True))
        print_table("classes", ["class", "IoU %", "Acc %", "Dice %", "pixels %"], rows)
        means = {"mIoU": iou.nanmean(), "mAcc": acc.nanmean(), "aAcc": hit.sum() / truth.sum(), "mDice": dice.nanmean()}
        return {name: value.item() for name, value in means.items()}

    def _class_count(self) -> int:
        return len(self.dataset_meta["classes"])
