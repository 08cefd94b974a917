"""Pictures of the features of a split: their t-SNE or principal components, coloured by class.

Papers: t-SNE https://jmlr.org/papers/v9/vandermaaten08a.html, silhouette https://doi.org/10.1016/0377-0427(87)90125-7
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from mmengine.config import Config

from densevit.engine.feature_extractor import FeatureExtractor, split_to_evaluate
from densevit.errors import CheckpointError, ConfigError, DataError, InstallationError
from densevit.palette import distinct_colours

METHODS = ("tsne", "pca")
COLOURED = 20  # classes that can still be told apart
MARKERS = "o^"  # a shape for ten of them each, as colours alone would be too alike
REST = "#c7c7c7"
SCORED = 5000  # samples whose distances are compared: time and memory are quadratic in them
COMPONENTS = 50  # that t-SNE reads; those beyond are noise that costs time
PERPLEXITY = 30.0


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """Samples of a split in the plane.

    Attributes:
        features: ``(N, C)`` float32.
        points: ``(N, 2)`` float32.
        explained: Shares of the variance of the features that the two axes have; None of t-SNE.
        labels: ``(N,)`` int64, indices of classes; -1 where the dataset has none.
        paths: Files of the samples.
        classes: Names of the classes; none if the dataset has no class per sample.
    """

    features: np.ndarray
    points: np.ndarray
    explained: tuple[float, float] | None
    labels: np.ndarray
    paths: list[str]
    classes: list[str]

    def separation(self) -> tuple[float, float]:
        """Return the silhouette scores of the classes, of features and of points; NaN where there are no classes."""
        return silhouette(self.features, self.labels), silhouette(self.points, self.labels)

    def save(self, path: Path) -> None:
        """Write an .npz of all that is known but how it was made."""
        np.savez_compressed(
            path,
            features=self.features,
            points=self.points,
            labels=self.labels,
            paths=np.array(self.paths, dtype=str),
            classes=np.array(self.classes, dtype=str),
        )


def map_features(
    cfg: Config, checkpoint: str | Path, split: str, method: str, limit: int, device: str | None = None
) -> FeatureMap:
    """Lay the features of the samples of a split out in the plane.

    Args:
        cfg: A config of any task; samples have classes if its dataset has a ``label`` for each of them.
        checkpoint: See `FeatureExtractor`.
        split: "train", "val" or "test".
        method: "tsne" or "pca".
        limit: The largest number of samples, which are drawn at random, always the same.
        device: Where to run.

    Raises:
        ConfigError: There is no such split or method.
        DataError: There are less than three samples, or features cannot be told apart.
        CheckpointError: The checkpoint does not fit, or gives features that are no numbers.
        InstallationError: scikit-learn is not installed.
    """
    _sklearn("decomposition")
    if method not in METHODS:
        raise ConfigError(f"features are laid out by {' or '.join(METHODS)}, not by {method!r}")
    dataset = split_to_evaluate(cfg, split)
    chosen = choose_samples(len(dataset), limit)
    extract = FeatureExtractor(cfg, checkpoint, device)
    features = extract(dataset, chosen, f"features of {split}").numpy()
    if not np.isfinite(features).all():
        raise CheckpointError(f"{checkpoint} gives features that are infinite or not a number: take an earlier one")
    points, explained = project(features, method)
    labelled = hasattr(dataset, "label")
    labels = np.array([dataset.label(i) if labelled else -1 for i in chosen], dtype=np.int64)
    classes = list(dataset.classes) if labelled else []
    return FeatureMap(features, points, explained, labels, [dataset.path(i) for i in chosen], classes)


def choose_samples(count: int, limit: int) -> list[int]:
    """Return increasing indices of ``limit`` of ``count`` samples, or of all; drawn at random, always the same.

    Raises:
        ConfigError: ``limit`` is less than three.
    """
    if limit < 3:
        raise ConfigError(f"--limit is the number of samples to show, at least 3, not {limit}")
    drawn = np.random.default_rng(0).permutation(count)[:limit]
    return sorted(int(i) for i in drawn)


def project(features: np.ndarray, method: str) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Return the points ``(N, 2)`` of features ``(N, C)`` and, of "pca", the shares of the variance that they explain.

    Raises:
        DataError: There are less than three samples, or all features are equal.
    """
    if len(features) < 3:
        raise DataError(f"a picture of features needs at least 3 samples, not {len(features)}")
    if np.ptp(features, axis=0).max(initial=0.0) == 0:
        raise DataError(f"the features of all {len(features)} samples are equal: is this a trained checkpoint?")
    size = min(2 if method == "pca" else COMPONENTS, *features.shape)
    pca = _sklearn("decomposition").PCA(size, random_state=0)
    points = pca.fit_transform(features.astype(np.float64))
    if method == "pca":
        shares = [*pca.explained_variance_ratio_.tolist(), 0.0]  # of one channel there is no second component
        return _two_columns(points), (shares[0], shares[1])
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    tsne = _sklearn("manifold").TSNE(2, perplexity=perplexity, init="pca" if size > 1 else "random", random_state=0)
    return _two_columns(tsne.fit_transform(points.astype(np.float32))), None


def silhouette(x: np.ndarray, labels: np.ndarray) -> float:
    """Return how well classes separate in ``x`` ``(N, C)``: the mean over samples of ``(b - a) / max(a, b)``.

    ``a`` is the mean distance of a sample to the others of its class, ``b`` that to the samples of the nearest other
    class: 1 says that classes are far apart, 0 that they overlap. NaN where there is nothing to compare. Of many
    samples it is estimated from `SCORED` of them.
    """
    size = SCORED if len(x) > SCORED else None
    if not 2 <= len(np.unique(labels)) < len(x):
        return float("nan")
    return float(_sklearn("metrics").silhouette_score(x, labels, sample_size=size, random_state=0))


def draw(found: FeatureMap, title: str) -> Figure:
    """Return a picture of the points, with a legend of up to `COLOURED` classes, of more the most frequent."""
    shown = most_frequent(found.labels, COLOURED)
    figure = Figure(figsize=(9.6 if shown else 7.2, 7.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colours = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in distinct_colours(10)]
    styles = [(colours[i % 10], MARKERS[i // 10]) for i in range(len(shown))]
    groups = [(found.labels == k, *style, found.classes[k]) for k, style in zip(shown, styles, strict=True)]
    rest = ~np.isin(found.labels, shown)
    if rest.any():  # they are drawn first, so that they hide nothing
        groups.insert(0, (rest, REST if shown else "C0", MARKERS[0], "other classes"))
    size = float(np.clip(15000 / len(found.points), 10, 60))
    handles = []
    for rows, colour, marker, name in groups:
        x, y = found.points[rows].T
        axes.scatter(x, y, s=size, color=colour, marker=marker, linewidths=0, alpha=0.75)
        handles.append(Line2D([], [], linestyle="", marker=marker, color=colour, label=f"{name} ({rows.sum()})"))
    handles = [*handles[-len(shown) :], *handles[: -len(shown)]]
    axes.set_title(title, fontsize=11)
    if found.explained is None:
        axes.set(xticks=[], yticks=[])  # distances of t-SNE have no unit
    else:
        for axis, share, number in zip((axes.xaxis, axes.yaxis), found.explained, ("first", "second"), strict=True):
            axis.set_label_text(f"{number} principal component, {share:.1%} of the variance")
    if shown:
        figure.legend(handles=handles, loc="outside right upper", fontsize=9, frameon=False)
    return figure


def most_frequent(labels: np.ndarray, count: int) -> list[int]:
    """Return the ``count`` most frequent classes in the order of their indices; -1 is none."""
    found, numbers = np.unique(labels[labels >= 0], return_counts=True)
    return sorted(int(i) for i in found[np.argsort(-numbers, kind="stable")][:count])


def _two_columns(points: np.ndarray) -> np.ndarray:
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1]))).astype(np.float32)


def _sklearn(module: str) -> Any:
    """Return a module of scikit-learn, which is optional."""
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise InstallationError(
            f'pictures of features need scikit-learn ({error}): pip install "densevit[plots]"'
        ) from error
