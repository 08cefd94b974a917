"""Accuracy of videos and of their views, against counts by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from densevit.structures import ClassTarget, Meta, Sample
from densevit.tasks.video import ClipAccuracy, ClipPrediction


def data(count: int, views: int, num_classes: int = 7) -> tuple[Tensor, Tensor]:
    """Random labels, and scores ``(N, V, K)`` of views that are right now and then."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(num_classes - 1, (count,), generator=generator)
    scores = torch.rand(count, views, num_classes, generator=generator)
    scores[torch.arange(count), :, truth] += 0.3
    return truth, scores.softmax(-1)


def score(truth: Tensor, scores: Tensor, batch_size: int = 4) -> dict[str, float]:
    metric = ClipAccuracy()
    metric.dataset_meta = {"classes": [f"class {i}" for i in range(scores.shape[-1])]}
    clip, meta = torch.zeros(2, 3, 1, 1), Meta("", (2, 1, 1), (2, 1, 1))
    for labels, chunk in zip(truth.split(batch_size), scores.split(batch_size), strict=True):
        samples = [Sample(clip, ClassTarget(label), meta) for label in labels]
        metric.process(samples, [ClipPrediction(views.mean(dim=0), views) for views in chunk])
    return metric.evaluate(len(truth))


def by_hand(truth: Tensor, scores: Tensor) -> dict[str, float]:
    labels, views = truth.numpy(), scores.numpy()
    order = views.mean(axis=1).argsort(axis=1)[:, ::-1]
    right = order[:, 0] == labels
    return {
        "top1": float(right.mean()),
        "top5": float(np.mean([t in row for t, row in zip(labels, order[:, :5], strict=True)])),
        "mAcc": float(np.mean([right[labels == k].mean() for k in np.unique(labels)])),
        "view_top1": float((views.argmax(axis=2) == labels[:, None]).mean()),
    }


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_results_equal_an_independent_count(batch_size: int) -> None:
    found = score(*data(43, views=6), batch_size)
    assert found == pytest.approx(by_hand(*data(43, views=6)), rel=1e-6)
    assert found["view_top1"] < found["top1"], "views are right less often than their mean"


def test_four_views_by_hand() -> None:
    views = torch.tensor([[[0.6, 0.4], [0.1, 0.9]], [[0.7, 0.3], [0.2, 0.8]]])  # means: second, second
    assert score(torch.tensor([0, 1]), views) == {"top1": 0.5, "mAcc": 0.5, "view_top1": 0.5}
    assert score(torch.tensor([1, 1]), torch.cat([views[:1], views[:1]])) == {"top1": 1, "mAcc": 1, "view_top1": 0.5}


def test_with_one_view_there_is_nothing_to_tell_of_views() -> None:
    assert set(score(*data(9, views=1))) == {"top1", "top5", "mAcc"}


def test_mixed_labels_count_by_their_larger_share() -> None:
    views = torch.tensor([[[0.6, 0.4], [0.7, 0.3]]])
    metric = ClipAccuracy()
    metric.dataset_meta = {"classes": ["a", "b"]}
    sample = Sample(torch.zeros(1, 3, 1, 1), ClassTarget(torch.tensor([0.8, 0.2])), Meta("", (1, 1, 1), (1, 1, 1)))
    metric.process([sample], [ClipPrediction(views[0].mean(dim=0), views[0])])
    assert metric.evaluate(1) == {"top1": 1, "mAcc": 1, "view_top1": 1}


def test_a_metric_can_be_used_again_from_nothing() -> None:
    metric = ClipAccuracy()
    metric.dataset_meta = {"classes": ["a", "b"]}
    meta = Meta("", (1, 1, 1), (1, 1, 1))
    for guess in (0.9, 0.1, 0.9):
        views = torch.tensor([[guess, 1 - guess]] * 2)
        sample = Sample(torch.zeros(1, 3, 1, 1), ClassTarget(torch.tensor(0)), meta)
        metric.process([sample], [ClipPrediction(views.mean(dim=0), views)])
        right = float(guess > 0.5)
        assert metric.evaluate(1) == {"top1": right, "mAcc": right, "view_top1": right}


def _score_part(rank: int, world_size: int) -> dict[str, float]:
    truth, scores = data(5, views=3)
    return score(truth[rank::world_size], scores[rank::world_size])


@pytest.mark.parametrize("world_size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_number_of_processes_changes_no_bit(in_processes: Callable[..., list[Any]], world_size: int) -> None:
    assert in_processes(_score_part, world_size) == [score(*data(5, views=3))] * world_size
