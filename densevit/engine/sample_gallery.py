"""Which samples of an evaluation to show: the worst, the best, and some spread evenly over the split."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import dist

from densevit.data.panels import side_by_side
from densevit.structures import Sample

MAX_WIDTH = 2400  # pixels of a picture
Kept = tuple[float, str, Any]  # score, path, prediction


@dataclass(frozen=True)
class Shown:
    """A sample with a picture of input, truth and prediction, encoded as PNG; without a metric its score is NaN."""

    score: float
    path: str
    index: int
    picture: bytes

    @property
    def file_name(self) -> str:
        """Of the picture."""
        return f"{self.index:05d}_{Path(self.path.removesuffix('.gz')).stem}.png"


class SampleGallery:
    """Keeps predictions as they arrive, a few only, so that nothing has to be predicted again.

    A sample goes by the path of its input.

    Args:
        dataset: That is evaluated.
        count: How many samples to keep of each kind, on each process.
    """

    def __init__(self, dataset: Any, count: int) -> None:
        self.dataset, self.count = dataset, count
        indices = np.unique(np.linspace(0, len(dataset) - 1, count).astype(int))
        self._spread_paths = {dataset.path(int(i)) for i in indices}
        self.kept: dict[str, list[Kept]] = {"worst": [], "best": [], "spread": []}

    def add(self, samples: Sequence[Sample], predictions: Sequence[Any], scores: Sequence[float]) -> None:
        """Keep what belongs to the worst, the best or the spread ones; a score is NaN where there is none."""
        for sample, prediction, score in zip(samples, predictions, scores, strict=True):
            kept = (score, sample.meta.path, prediction)
            if sample.meta.path in self._spread_paths:
                self.kept["spread"].append(kept)
            if not math.isnan(score):
                for kind in ("worst", "best"):
                    self.kept[kind] = _ranked(kind, [*self.kept[kind], kept])[: self.count]

    def draw(self) -> dict[str, list[Shown]]:
        """Return pictures of what this process has kept, none of a prediction that cannot be drawn."""
        wanted = {path for kept in self.kept.values() for _, path, _ in kept}
        paths = {i: self.dataset.path(i) for i in range(len(self.dataset))}
        indices = {path: i for i, path in paths.items() if path in wanted}
        pictures: dict[str, bytes] = {}
        shown: dict[str, list[Shown]] = {}
        for kind, kept in self.kept.items():
            shown[kind] = []
            for score, path, prediction in kept:
                if hasattr(prediction, "draw"):
                    if path not in pictures:
                        pictures[path] = _encoded(_panels(self.dataset, indices[path], prediction))
                    shown[kind].append(Shown(score, path, indices[path], pictures[path]))
        return shown


def merge(own: Mapping[str, list[Shown]], count: int) -> dict[str, list[Shown]]:
    """Return the worst, the best and the spread ones of all processes; call it on each of them.

    None is among both the worst and the best.
    """
    gathered: list[Mapping[str, list[Shown]]] = dist.all_gather_object(dict(own))
    merged: dict[str, list[Shown]] = {}
    for kind in ("worst", "best", "spread"):
        by_path = {shown.path: shown for part in gathered for shown in part.get(kind, ())}  # a sampler may have padded
        merged[kind] = list(by_path.values())
    merged["worst"] = _ranked("worst", merged["worst"])[:count]
    taken = {shown.path for shown in merged["worst"]}
    merged["best"] = _ranked("best", [shown for shown in merged["best"] if shown.path not in taken])[:count]
    merged["spread"].sort(key=lambda shown: shown.index)
    return merged


def _ranked(kind: str, entries: list[Any]) -> list[Any]:
    """Return entries of a kind, the most extreme first.

    Equal ones are in order of their paths, which makes the best the worst from the other end, and both the same for
    any number of processes.
    """

    def key(entry: Kept | Shown) -> tuple[float, str]:
        return (entry.score, entry.path) if isinstance(entry, Shown) else entry[:2]

    return sorted(entries, key=key, reverse=kind == "best")


def _panels(dataset: Any, index: int, prediction: Any) -> dict[str, np.ndarray]:
    """Return the input, the truth where it can be drawn, and the prediction."""
    pixels, target, _ = dataset.read(index)
    image = dataset.picture(pixels)
    panels = {"input": image}
    if target is not None and hasattr(prediction, "draw_truth"):
        panels["truth"] = prediction.draw_truth(image, target, dataset.classes, dataset.palette)
    return {**panels, "prediction": prediction.draw(image, dataset.classes, dataset.palette)}


def _encoded(panels: Mapping[str, np.ndarray]) -> bytes:
    picture = side_by_side(panels)
    picture.thumbnail((MAX_WIDTH, MAX_WIDTH))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
