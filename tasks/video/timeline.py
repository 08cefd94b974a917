"""What is predicted over the time of a long video, and a picture of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from densevit.data.class_prediction import ClassPrediction, shortened
from densevit.data.font import boxes_for_missing_letters
from densevit.data.prediction import Palette
from densevit.data.prediction_files import exact, write_json
from densevit.tables import table

WIDTH, HEIGHT, DPI = 1200, 480, 100
LEFT, RIGHT, TOP, BOTTOM = 70, 230, 34, 50  # pixels around the axes; the legend is to the right
STRIP, BAND = 84, 14  # heights of the thumbnails, and of the colours of the top class
MAX_CURVES, MAX_ROWS = 8, 40


class Segment(NamedTuple):
    """Seconds from ``start`` to ``end`` in which one class has the highest score; ``score`` is its mean there."""

    start: float
    end: float
    label: int
    score: float


@dataclass(frozen=True)
class Timeline:
    """The scores ``(n, K)`` of n windows of a video, and their ``times`` ``(n, 2)``: start and end in seconds."""

    times: Tensor
    scores: Tensor

    def edges(self) -> list[float]:
        """Return the n + 1 seconds between which each window is the one whose middle is the nearest."""
        middles = self.times.mean(dim=1)
        between = (middles[1:] + middles[:-1]) / 2
        return [self.times[0, 0].item(), *between.tolist(), self.times[-1, 1].item()]

    def segments(self) -> list[Segment]:
        """Return where the top class changes, in order and without gaps."""
        edges, labels = self.edges(), self.scores.argmax(dim=1)
        starts = [0, *((labels[1:] != labels[:-1]).nonzero().flatten() + 1).tolist(), len(labels)]
        found = []
        for first, stop in pairwise(starts):
            label = int(labels[first])
            found.append(Segment(edges[first], edges[stop], label, self.scores[first:stop, label].mean().item()))
        return found

    def predictions(self) -> list[ClassPrediction]:
        """Return what is predicted of each window."""
        return [ClassPrediction(scores) for scores in self.scores]

    def save(self, stem: Path) -> Path:
        """Write start, end and the scores of all classes of each window to ``<stem>.json``."""
        rows = zip(self.times.tolist(), exact(self.scores.tolist()), strict=True)
        windows = [{"start": start, "end": end, "scores": scores} for (start, end), scores in rows]
        return write_json(stem, {"windows": windows})

    def summary(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return the class and scores of all windows together, their means, the segments, and each window's scores."""
        times = [[round(second, 3) for second in pair] for pair in self.times.tolist()]
        return {
            **ClassPrediction(self.scores.mean(dim=0)).summary(classes),
            "segments": [
                {
                    "start": round(s.start, 3),
                    "end": round(s.end, 3),
                    "class": classes[s.label],
                    "score": round(s.score, 6),
                }
                for s in self.segments()
            ],
            "windows": [
                {"start": start, "end": end, "scores": prediction.summary(classes)["scores"]}
                for (start, end), prediction in zip(times, self.predictions(), strict=True)
            ],
        }

    def describe(self, title: str, classes: Sequence[str]) -> str:
        """Return a table of the segments, of very many the longest."""
        segments = self.segments()
        if len(segments) > MAX_ROWS:
            title = f"{title}: the {MAX_ROWS} longest of {len(segments)} segments"
            segments = sorted(sorted(segments, key=lambda s: s.start - s.end)[:MAX_ROWS])
        rows = [(f"{s.start:.1f}", f"{s.end:.1f}", classes[s.label], f"{s.score:.1%}") for s in segments]
        return table(title, ("from s", "to s", "class", "mean probability"), rows)

    def draw(
        self, frames: Sequence[np.ndarray], classes: Sequence[str], palette: Palette, title: str = ""
    ) -> np.ndarray:
        """Return a picture ``(H, W, 3)``, uint8 RGB, of the scores over time.

        Args:
            frames: ``(h, w, 3)``, uint8 RGB, evenly spaced over the video, drawn above: see `thumbnails`.
            classes: Names of the classes.
            palette: Their colours.
            title: What is drawn.
        """
        figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI)
        canvas = FigureCanvasAgg(figure)
        figure.text(LEFT / WIDTH, 1 - 9 / HEIGHT, title, va="top", parse_math=False)
        plot, edges = HEIGHT - TOP - STRIP - BAND - BOTTOM - 12, self.edges()
        _draw_strip(_axes(figure, TOP, STRIP, edges), frames, edges[0], edges[-1])
        band, curves = _axes(figure, TOP + STRIP + 4, BAND, edges), _axes(figure, TOP + STRIP + BAND + 12, plot, edges)
        for start, end, label, _ in self.segments():
            band.axvspan(start, end, color=_rgb(palette[label]), linewidth=0)
        shown = self._shown()
        for label in shown:
            values, name = self.scores[:, label].numpy(), shortened(classes[label])
            curves.stairs(values, edges, baseline=None, color=_rgb(palette[label]), linewidth=2, label=name)
        curves.set_ylim(-0.02, 1.02)
        curves.grid(alpha=0.3)
        curves.set_axis_on()
        curves.set_xlabel("seconds")
        curves.set_ylabel("probability")
        kind = "top classes" if len(shown) < self.scores.shape[1] else "classes"
        curves.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), title=kind, alignment="left", frameon=False)
        with boxes_for_missing_letters():
            canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    def _shown(self) -> list[int]:
        """Return the classes worth a curve: those that are ever on top, then those of the highest peaks."""
        counts = self.scores.argmax(dim=1).bincount(minlength=self.scores.shape[1])
        order = (counts + self.scores.max(dim=0).values).argsort(descending=True, stable=True)
        count = min(MAX_CURVES, max(5, int((counts > 0).sum())), len(order))
        return [i for i in order[:count].tolist() if self.scores[:, i].max() >= 0.01 or counts[i]]


def thumbnails(height: int, width: int) -> int:
    """Return how many frames of a size fit above the curves."""
    return max(1, int((WIDTH - LEFT - RIGHT) // (STRIP * width / height + 2)))


def _axes(figure: Figure, top: float, height: float, edges: Sequence[float]) -> Axes:
    """Return axes of the time of the video, so many pixels from the top; but for the data they are invisible."""
    box = (LEFT / WIDTH, 1 - (top + height) / HEIGHT, (WIDTH - LEFT - RIGHT) / WIDTH, height / HEIGHT)
    axes = figure.add_axes(box)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_axis_off()
    return axes


def _draw_strip(axes: Axes, frames: Sequence[np.ndarray], start: float, end: float) -> None:
    """Draw frames in the middle of equal shares of the time, undistorted."""
    share, per_pixel = (end - start) / len(frames), (end - start) / (WIDTH - LEFT - RIGHT)
    for i, frame in enumerate(frames):
        middle, half = start + (i + 0.5) * share, STRIP * frame.shape[1] / frame.shape[0] * per_pixel / 2
        half = min(half, share / 2)
        axes.imshow(frame, extent=(middle - half, middle + half, 0, 1), aspect="auto", interpolation="antialiased")
    axes.set_xlim(start, end)
    axes.set_ylim(0, 1)


def _rgb(colour: Sequence[int]) -> tuple[float, ...]:
    return tuple(channel / 255 for channel in colour)
