"""How often classifiers are right."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from densevit.data.class_prediction import ClassPrediction
from densevit.engine.confusion import count_pairs, draw_confusion, sum_over_processes
from densevit.errors import ConfigError
from densevit.registry import METRICS
from densevit.structures import Sample
from densevit.tables import print_table

MAX_MATRIX = 1000  # classes up to which confusions are counted: 8 MB
MAX_ROWS = 50  # of the table of classes; beyond, the best and the worst are printed
EXTREMES = 10


@METRICS.register_module()
class Accuracy(BaseMetric):
    """top1, top5 and mAcc, the mean accuracy of the classes, between 0 and 1; confusions of up to 1000 classes.

    All are counted in integers as predictions arrive and summed over the processes once: the result does not depend
    on batch size or number of processes. Classes of which there is no sample are left out of the means.

    Args:
        topk: The truth shall be among the k most probable classes. Those k which no prediction could miss, as there
            are not more classes, are left out.
    """

    score_name = "probability of the truth"  # of batch_scores
    rising: tuple[str, ...]  # the names of scores of which more is better
    default_prefix = "classification"  # quiets mmengine, which wants one; `evaluate` names the results without it

    def __init__(self, topk: Sequence[int] = (1, 5)) -> None:
        super().__init__()
        if not all(isinstance(k, int) and k > 0 for k in topk):
            raise ConfigError(f"Accuracy: topk must be numbers of classes such as (1, 5), not {topk!r}")
        self.topk = tuple(topk)
        self.rising = (*(f"top{k}" for k in topk), "mAcc")
        self.counts: dict[str, Tensor] | None = None
        self.confusion: Tensor | None = None
        self.batch_scores: list[float] = []

    def process(self, data_batch: Sequence[Sample], data_samples: Sequence[ClassPrediction]) -> None:
        """Count hits and (truth, prediction) pairs of a batch."""
        truth = torch.stack([class_of(sample.target.label) for sample in data_batch])
        scores = torch.stack([prediction.scores for prediction in data_samples])
        self.batch_scores = scores.gather(1, truth[:, None])[:, 0].tolist()
        self.add(truth, scores)

    def add(self, truth: Tensor, scores: Tensor) -> None:
        """Count ``(N,)`` class indices against the scores ``(N, K)``."""
        if self.counts is None:
            self.counts = self._zeros()
        classes = self._class_count()
        best = scores.topk(min(max([1, *self._topk()]), classes)).indices
        guess = best[:, 0]
        for k in self._topk():
            self.counts[f"top{k}"] += (best[:, :k] == truth[:, None]).sum()
        self.counts["truth"] += torch.bincount(truth, minlength=classes)
        self.counts["guess"] += torch.bincount(guess, minlength=classes)
        self.counts["hit"] += torch.bincount(truth[truth == guess], minlength=classes)
        if "confusion" in self.counts:
            self.counts["confusion"] += count_pairs(truth, guess, classes)

    def evaluate(self, size: int) -> dict[str, float]:
        """Sum over the processes, print the table of classes, return the results."""
        own, self.counts = self.counts or self._zeros(), None
        return self.compute_metrics([{name: sum_over_processes(count) for name, count in own.items()}])

    def compute_metrics(self, results: list[dict[str, Tensor]]) -> dict[str, float]:
        """Return the results of one set of counts."""
        counts = results[0]
        self.confusion = counts.get("confusion")
        hit, truth, guess = (counts[name].double() for name in ("hit", "truth", "guess"))
        recall = hit / truth
        self._print(hit / guess, recall, 2 * hit / (truth + guess), counts["truth"])
        hits = {name: (count / truth.sum()).item() for name, count in counts.items() if name.startswith("top")}
        return {**hits, "mAcc": recall.nanmean().item()}

    def pictures(self) -> dict[str, np.ndarray]:
        """Return the confusions that were counted last."""
        if self.confusion is None:
            return {}
        return {"confusion": draw_confusion(self.confusion, self.dataset_meta["classes"])}

    def _print(self, precision: Tensor, recall: Tensor, f1: Tensor, truth: Tensor) -> None:
        names, present = self.dataset_meta["classes"], truth > 0
        columns = [(100 * v).tolist() for v in (precision, recall, f1)]
        rows = list(zip(names, *columns, truth.tolist(), strict=True))
        title = "classes"
        if len(rows) > MAX_ROWS:
            order = [i for i in f1.argsort(descending=True, stable=True).tolist() if present[i]]
            shown = order if len(order) <= 2 * EXTREMES else order[:EXTREMES] + order[-EXTREMES:]
            title = f"classes, the {EXTREMES} of the best F1 and the {EXTREMES} of the worst"
            rows = [rows[i] for i in shown]
        means = [(100 * v[present]).nan_to_num(0).mean().item() for v in (precision, recall, f1)]
        rows.append(("mean", *means, int(truth.sum())))
        print_table(title, ["class", "precision %", "recall %", "F1 %", "samples"], rows)

    def _zeros(self) -> dict[str, Tensor]:
        classes = self._class_count()
        shapes: dict[str, tuple[int, ...]] = {f"top{k}": () for k in self._topk()}
        shapes.update(dict.fromkeys(("truth", "guess", "hit"), (classes,)))
        if classes <= MAX_MATRIX:
            shapes["confusion"] = (classes, classes)
        return {name: torch.zeros(shape, dtype=torch.int64) for name, shape in shapes.items()}

    def _topk(self) -> list[int]:
        return [k for k in self.topk if k == 1 or k < self._class_count()]

    def _class_count(self) -> int:
        return len(self.dataset_meta["classes"])


def class_of(label: Tensor) -> Tensor:
    """Return the index of a class, of mixed samples the one with the largest share."""
    return (label if label.ndim == 0 else label.argmax()).cpu()
