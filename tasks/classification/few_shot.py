"""Few-shot evaluation: a linear probe on frozen features learns the classes from a few images of each.

Papers: https://arxiv.org/abs/2010.11929 (section 4.1), https://arxiv.org/abs/2106.04560 (section 3)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from torch import Tensor
from torch.nn import functional as F

from densevit.data.folders import shortened
from densevit.engine.feature_extractor import FeatureExtractor, split_to_evaluate
from densevit.errors import ConfigError, DataError

# Strengths of the regularisation, relative to the number of features; of equally good ones the first is taken.
RIDGES = (1.0, 0.1, 10.0, 0.01, 100.0, 0.001, 1000.0)


class Probe(NamedTuple):
    """A linear classifier of features ``(N, C)``: weight ``(C, K)``, bias ``(K,)``, and how it was regularised."""

    weight: Tensor
    bias: Tensor
    ridge: float

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Return the share of the samples whose class is found."""
        scores = features.double() @ self.weight + self.bias
        return (scores.argmax(dim=1) == labels).double().mean().item()


def fit_probe(features: Tensor, labels: Tensor, num_classes: int) -> Probe:
    """Fit 1 for the class and -1 for all others by regularised least squares, in closed form.

    Features are standardised before. The bias is not regularised. The strength is the one of `RIDGES` with which most
    samples are classified correctly by a fit to all the others; that of one sample per class cannot be chosen, and
    is the first.

    Args:
        features: ``(N, C)``.
        labels: ``(N,)``, class indices.
        num_classes: K.
    """
    x = features.double()
    mean, std = x.mean(dim=0), x.std(dim=0, correction=0).clamp_min(1e-6)
    x = (x - mean) / std
    y = 2 * F.one_hot(labels, num_classes).double() - 1
    centre = y.mean(dim=0)
    values, vectors = torch.linalg.eigh(x.mT @ x)
    x = x @ vectors
    moments = x.mT @ (y - centre)
    best, weight, strength = -1.0, moments, RIDGES[0]
    for ridge in RIDGES:
        inverse = 1 / (values.clamp_min(0) + ridge * len(values))
        solution = inverse[:, None] * moments
        leverage = (x.square() * inverse).sum(dim=1, keepdim=True) + 1 / len(x)
        left_out = y - (y - centre - x @ solution) / (1 - leverage)
        correct = (left_out.argmax(dim=1) == labels).double().mean().item()
        if correct > best:
            best, weight, strength = correct, solution, ridge
    weight = vectors @ weight / std[:, None]
    return Probe(weight, centre - mean @ weight, strength)


def choose_shots(labels: Tensor, classes: Sequence[str], shots: int, seed: int) -> Tensor:
    """Return the indices ``(K * shots,)`` of that many random samples of each class; more shots include the fewer.

    Raises:
        DataError: A class has fewer.
    """
    counts = torch.bincount(labels, minlength=len(classes))
    if (counts < shots).any():
        few = [f"{name} ({count})" for name, count in zip(classes, counts.tolist(), strict=True) if count < shots]
        raise DataError(f"{len(few)} classes have fewer than {shots} images: {shortened(few)}. Ask for fewer --shots")
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    starts = counts.cumsum(dim=0) - counts
    return by_class[(starts[:, None] + torch.arange(shots)).flatten()]


def evaluate_few_shot(
    cfg: Config, checkpoint: str | Path, shots: Sequence[int], seeds: int, device: str | None = None
) -> dict[str, Any]:
    """Fit probes to images of the training split, as the test split is transformed, and test them on the test split.

    Args:
        cfg: A config of classification.
        checkpoint: See `FeatureExtractor`.
        shots: Numbers of images of each class.
        seeds: Number of random choices of the images for each of these numbers.
        device: Where to run.

    Returns:
        ``features``, ``classes`` and ``test_images``, their numbers, and ``results``: per number of ``shots`` the
        mean ``top1`` over the choices, its ``std``, the ``top1_per_seed`` and the ``ridge_per_seed``.

    Raises:
        ConfigError: Numbers are not positive, or the config is not one of classification.
        DataError: A class has too few images, or the splits have other classes.
        CheckpointError: The checkpoint does not fit.
    """
    if not shots or min(shots) < 1 or seeds < 1:
        raise ConfigError(f"--shots and --seeds are positive numbers, not {list(shots)} and {seeds}")
    train, test = _datasets(cfg)
    labels = torch.tensor([train.label(i) for i in range(len(train))])
    truth = torch.tensor([test.label(i) for i in range(len(test))])
    chosen = {(n, seed): choose_shots(labels, train.classes, n, seed) for n in shots for seed in range(seeds)}
    used = torch.cat(list(chosen.values())).unique()
    extract = FeatureExtractor(cfg, checkpoint, device)
    features = extract(train, used.tolist(), "features to learn from")
    test_features = extract(test, range(len(test)), "features to test on")
    results = []
    for n in shots:
        picked = [torch.searchsorted(used, chosen[n, seed]) for seed in range(seeds)]
        probes = [fit_probe(features[rows], labels[used[rows]], len(train.classes)) for rows in picked]
        top1 = torch.tensor([probe.accuracy(test_features, truth) for probe in probes], dtype=torch.float64)
        results.append(
            {
                "shots": n,
                "top1": top1.mean().item(),
                "std": top1.std().item() if seeds > 1 else 0.0,
                "top1_per_seed": top1.tolist(),
                "ridge_per_seed": [probe.ridge for probe in probes],
            }
        )
    sizes = {"features": features.shape[1], "classes": len(train.classes), "test_images": len(test)}
    return {**sizes, "results": results}


def _datasets(cfg: Config) -> tuple[Any, Any]:
    """Return the training and the test split, both transformed as the test split."""
    train, test = split_to_evaluate(cfg, "train"), split_to_evaluate(cfg, "test")
    for dataset in (train, test):
        if not hasattr(dataset, "label"):
            raise ConfigError(f"{type(dataset).__name__} has no class per image: few-shot evaluation needs one")
    if list(train.classes) != list(test.classes):
        raise DataError(
            f"the training split has other classes ({shortened(list(train.classes))}) than the test split "
            f"({shortened(list(test.classes))}): make them the same"
        )
    return train, test
