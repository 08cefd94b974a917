"""Pictures of what a detector confuses and how precise it is."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from densevit.data.font import boxes_for_missing_letters
from densevit.palette import LINES
from densevit.tasks.detection.coco_eval import ImageRecord
from densevit.tasks.detection.prediction import MIN_SCORE

MIN_IOU = 0.5  # of what is counted as confusions
MAX_CURVES = 6  # classes with a curve of their own


def count_confusions(records: Sequence[ImageRecord], num_classes: int) -> Tensor:
    """Count (truth, prediction) pairs of objects, ``(K + 1, K + 1)`` int64; the last row and column are background.

    Objects of scores of at least 0.3 take, the best first, the true one that their box overlaps most, by an IoU of at
    least 0.5: of their own class, and then of what is left. What is in a crowd is not counted.
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    for _, truth, found in records:
        order = np.argsort(-found.scores, kind="stable")
        order = order[found.scores[order] >= MIN_SCORE]
        labels, (iou, in_crowd) = found.labels[order], _overlaps(found.boxes[order], truth.boxes, truth.crowd)
        match = np.full(len(order), -1)
        same = labels[:, None] == truth.labels
        for overlap in (np.where(same, iou, 0), iou):
            _match(overlap, match)
        counted = (match >= 0) | ~in_crowd
        rows = np.where(match >= 0, np.append(truth.labels, 0)[match], num_classes)
        np.add.at(matrix, (rows[counted], labels[counted]), 1)
        missed = ~truth.crowd & ~np.isin(np.arange(len(truth.labels)), match)
        np.add.at(matrix[:, num_classes], truth.labels[missed], 1)
    return torch.from_numpy(matrix)


def f1_of(record: ImageRecord, num_classes: int) -> float:
    """Return the F1 of the objects of one image as `count_confusions` counts them; NaN where there is none at all."""
    matrix = count_confusions([record], num_classes).double()
    hit, true, found = matrix.diagonal().sum(), matrix[:num_classes].sum(), matrix[:, :num_classes].sum()
    return (2 * hit / (true + found)).item()


def _match(overlap: np.ndarray, match: np.ndarray) -> None:
    """Give each row without a match, in order, the free column that it overlaps most."""
    for row in np.flatnonzero(match < 0):
        free = overlap[row].copy()
        free[match[match >= 0]] = 0
        if free.size and free.max() >= MIN_IOU:
            match[row] = free.argmax()


def _overlaps(found: np.ndarray, true: np.ndarray, crowd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the IoU ``(m, n)`` of boxes x, y, width, height, 0 for crowds, and which lie half in a crowd, ``(m,)``."""
    start = np.maximum(found[:, None, :2], true[:, :2])
    stop = np.minimum((found[:, :2] + found[:, 2:])[:, None], true[:, :2] + true[:, 2:])
    inner = (stop - start).clip(0).prod(axis=2)
    own, other = found[:, 2:].prod(axis=1)[:, None], true[:, 2:].prod(axis=1)
    iou = inner / np.maximum(own + other - inner, 1e-9)
    in_crowd = (inner >= MIN_IOU * own) & crowd
    return np.where(crowd, 0, iou), in_crowd.any(axis=1)


def draw_curves(precision: np.ndarray, classes: Sequence[str], iou_type: str) -> np.ndarray:
    """Return a picture ``(H, W, 3)``, uint8 RGB, of the precision over the recall.

    Args:
        precision: As `CocoScores.precision`.
        classes: Names; those with objects have a curve of their own, the first six.
        iou_type: "bbox" or "segm", for the title.
    """
    recall = np.linspace(0, 1, precision.shape[1])
    curves = precision[..., 0, -1]
    present = np.flatnonzero((curves[0] > -1).all(axis=0))
    figure = Figure(figsize=(7.2, 4.6), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for index, name, style in ((0, "IoU 0.50", "-"), (5, "IoU 0.75", "--")):
        mean = curves[index][:, present].mean(axis=1) if len(present) else np.full(len(recall), np.nan)
        axes.plot(recall, mean, "k", linestyle=style, linewidth=2, label=f"mean, {name}: {mean.mean():.3f}")
    if len(present) > 1:
        for i, label in enumerate(present[:MAX_CURVES]):
            own = curves[0][:, label]
            axes.plot(recall, own, color=LINES[i], linewidth=1, label=f"{classes[label]}: {own.mean():.3f}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    shown = "" if len(present) <= MAX_CURVES else f", {MAX_CURVES} of {len(present)} classes"
    axes.set_title(f"{iou_type}: precision over recall at IoU 0.50{shown}", fontsize=11)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), title="average precision")
    with boxes_for_missing_letters():
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
