"""Confusion matrices ``(truth, prediction)``: counted, summed over processes, drawn."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from mmengine import dist
from torch import Tensor

from densevit.data.font import boxes_for_missing_letters

NAMED, NUMBERED = 50, 20  # up to how many classes the axes bear names, and the cells percentages


def count_pairs(truth: Tensor, guess: Tensor, num_classes: int) -> Tensor:
    """Return how often each class, ``(K, K)`` int64, was taken for which; both are ``(n,)`` class indices."""
    cells = truth.long() * num_classes + guess.long()
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)


def sum_over_processes(counts: Tensor) -> Tensor:
    """Return the sum, on the CPU, of the tensors that all processes have."""
    device = dist.get_comm_device(None) if dist.is_distributed() else counts.device
    total = counts.to(device, copy=True)
    dist.all_reduce(total)
    return total.cpu()


def draw_confusion(matrix: Tensor, classes: Sequence[str]) -> np.ndarray:
    """Return a picture ``(H, W, 3)``, uint8 RGB, of the share of each true class that was taken for which.

    Rows of classes without a sample are grey.
    """
    count, counts = len(classes), matrix.double().numpy()
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    side = min(3.2 + 0.42 * count, 13.0)
    figure = Figure(figsize=(side + 1.2, side), dpi=110, layout="compressed")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor("0.85")
    # By the square root: confusions of a few percent are what one looks for.
    cells = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    figure.colorbar(cells, ax=axes, fraction=0.04, format=PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    if count <= NAMED:
        size = 9 if count <= NUMBERED else 7
        axes.set_xticks(range(count), classes, rotation=90, fontsize=size)
        axes.set_yticks(range(count), classes, fontsize=size)
    if count <= NUMBERED:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                colour = "white" if share > 0.4 else "black"
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=8)
    with boxes_for_missing_letters():
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
