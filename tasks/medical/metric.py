"""Overlap and distance of surfaces, of volumes and classes."""

import csv
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine import dist
from mmengine.evaluator import BaseMetric
from torch import Tensor

from densevit.engine.confusion import count_pairs
from densevit.errors import DataError
from densevit.registry import METRICS
from densevit.structures import Sample
from densevit.tables import print_table
from densevit.tasks.medical.prediction import VolumePrediction

PERCENTILE = 0.95
COLUMNS = ("dice", "hd95_mm", "asd_mm", "truth_ml", "predicted_ml")


class CaseScores(NamedTuple):
    """The ``COLUMNS`` of one file, float64 ``(K - 1, 5)``; a row per class, without the background."""

    path: str
    values: Tensor


@METRICS.register_module()
class VolumeDice(BaseMetric):
    """mDice, and HD95 and ASD in mm: per volume and class on the grid of the file, averaged over volumes, then classes.

    Dice is ``2 |A and B| / (|A| + |B|)``. HD95 is the larger of the two 95th percentiles of the distances from one
    surface to the other, ASD the mean of all these distances, both ways, as MONAI computes them. Class 0 is the
    background and does not count.

    A class that is in neither the truth nor the prediction of a volume is left out there. If it is in only one of
    them, Dice is 0 and distances are undefined: those are means over the volumes that have both, and the table counts
    the others.

    Each process scores its volumes; the few numbers of each are gathered and put in order of the paths, so that the
    result does not depend on batch size or number of processes, to the last digit.

    Args:
        distances: Compute HD95 and ASD too, which takes seconds for a large volume.
    """

    score_name = "mean Dice"  # of batch_scores
    rising = ("mDice",)
    default_prefix = "medical"  # quiets mmengine, which wants one; `evaluate` names the means without it

    def __init__(self, distances: bool = True) -> None:
        super().__init__()
        self.distances = distances
        self.scores: list[CaseScores] = []
        self.evaluated: list[CaseScores] = []
        self.batch_scores: list[float] = []

    def process(self, data_batch: Sequence[Sample], data_samples: Sequence[VolumePrediction]) -> None:
        """Score the volumes of a batch.

        Raises:
            DataError: A volume has no labels, or what is predicted has another grid or classes that there are not.
        """
        for sample, prediction in zip(data_batch, data_samples, strict=True):
            path = sample.meta.path
            if sample.target is None:
                raise DataError(f"{path} has no labels to compare with: use densevit predict to predict such volumes")
            truth, found = sample.target.mask.as_subclass(Tensor).cpu(), prediction.mask
            if truth.shape != found.shape:
                shapes = f"{tuple(truth.shape)} voxels, but what was predicted for it {tuple(found.shape)}"
                raise DataError(f"{path} has labels on {shapes}: were the predictions made from other files?")
            if int(found.max()) >= self._class_count():
                raise DataError(
                    f"{path}: class {int(found.max())} is predicted, but there are {self._class_count()} classes: "
                    "was the model trained with others?"
                )
            self.add(path, truth, found, sample.target.spacing.tolist())
        self.batch_scores = [scores.values[:, 0].nanmean().item() for scores in self.scores[-len(data_batch) :]]

    def add(self, path: str, truth: Tensor, found: Tensor, spacing: Sequence[float]) -> None:
        """Score one volume: classes ``(D, H, W)`` uint8, edges of a voxel in mm."""
        count = self._class_count()
        slices = zip(truth, found, strict=True)  # one after the other: a whole volume of int64 takes gigabytes
        pairs = torch.stack([count_pairs(t.flatten(), f.flatten(), count) for t, f in slices]).sum(0).double()
        hit, there, predicted = pairs.diagonal(), pairs.sum(1), pairs.sum(0)
        distances = torch.full((count, 2), torch.nan, dtype=torch.float64)
        if self.distances:
            for i, box in _common_boxes(truth, found).items():
                distances[i] = distances.new_tensor(surface_distances(truth[box] == i, found[box] == i, spacing))
        voxel = math.prod(spacing) / 1000
        columns = [2 * hit / (there + predicted), *distances.T, there * voxel, predicted * voxel]
        self.scores.append(CaseScores(path, torch.stack(columns, dim=1)[1:]))

    def evaluate(self, size: int) -> dict[str, float]:
        """Gather from the processes, print the table of classes, return the means."""
        own, self.scores = self.scores, []
        return self.compute_metrics([scores for part in dist.all_gather_object(own) for scores in part])

    def compute_metrics(self, results: list[CaseScores]) -> dict[str, float]:
        """Return the means over all volumes."""
        by_path = {scores.path: scores for scores in results}  # a sampler may have padded
        self.evaluated = [by_path[path] for path in sorted(by_path)]
        values = torch.stack([scores.values for scores in self.evaluated])
        shown = 3 if self.distances else 1
        per_class = values[..., :shown].nanmean(0)
        self._print(values, per_class)
        means = per_class.nanmean(0).tolist()
        return dict(zip(("mDice", "HD95", "ASD")[:shown], means, strict=True))

    def write(self, folder: Path) -> Path:
        """Write what was evaluated last to ``volume_scores.csv`` in ``folder``: a line for each volume and class."""
        path = folder / "volume_scores.csv"
        names = self.dataset_meta["classes"][1:]
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("volume", "class", *COLUMNS))
            for case in self.evaluated:
                for name, row in zip(names, case.values.tolist(), strict=True):
                    writer.writerow((case.path, name, *("" if math.isnan(v) else f"{v:.6g}" for v in row)))
        return path

    def _print(self, values: Tensor, per_class: Tensor) -> None:
        dice, undefined = values[..., 0], values[..., 1].isnan() & ~values[..., 0].isnan()
        columns = [(100 * per_class[:, 0]).tolist(), *per_class[:, 1:].T.tolist()]
        counts = [(~dice.isnan()).sum(0).tolist()]
        header = ["class", "Dice %", "volumes"]
        if self.distances:
            header = ["class", "Dice %", "HD95 mm", "ASD mm", "volumes", "without distance"]
            counts.append(undefined.sum(0).tolist())
        rows = list(zip(self.dataset_meta["classes"][1:], *columns, *counts, strict=True))
        print_table(f"{len(values)} volumes", header, rows)

    def _class_count(self) -> int:
        return len(self.dataset_meta["classes"])


def surface_distances(a: Tensor, b: Tensor, spacing: Sequence[float]) -> tuple[float, float]:
    """Return HD95 and the average symmetric distance of the surfaces of two bool masks ``(D, H, W)``, not empty, in mm.

    A surface is the voxels of a mask of which one of the six neighbours is outside; the edge of the volume is outside.
    """
    from monai.metrics.utils import get_edge_surface_distance  # takes seconds, which other tasks are spared

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of MONAI, about its own call
        _, distances, _ = get_edge_surface_distance(a, b, spacing=list(spacing), symmetric=True)
    there, back = (d.double() for d in distances)
    hd95 = max(there.quantile(PERCENTILE), back.quantile(PERCENTILE))
    return hd95.item(), torch.cat((there, back)).mean().item()


def _common_boxes(a: Tensor, b: Tensor) -> dict[int, tuple[slice, ...]]:
    """Return, for each class that both masks have, the box around all of it."""
    from scipy.ndimage import find_objects

    boxes = {}
    for i, (one, other) in enumerate(zip(find_objects(a.numpy()), find_objects(b.numpy()), strict=False), start=1):
        if one and other:
            boxes[i] = tuple(slice(min(s.start, o.start), max(s.stop, o.stop)) for s, o in zip(one, other, strict=True))
    return boxes
