"""Scores against counts by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.tv_tensors import Image, Mask

from densevit.structures import Meta, Sample, SegTarget
from densevit.tasks.segmentation.metric import MeanIoU
from densevit.tasks.segmentation.prediction import SegPrediction

CLASSES = ["a", "b", "c", "d"]


def pairs(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random truths, some ignored and none of class 3, and predictions, in pictures of different sizes."""
    rng = np.random.default_rng(0)
    sizes = [(int(h), int(w)) for h, w in rng.integers(3, 20, (count, 2))]
    return [(rng.choice([0, 1, 2, 255], s).astype(np.uint8), rng.integers(0, 3, s).astype(np.uint8)) for s in sizes]


def by_hand(data: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """The four means from sets of pixels, class by class."""
    truth = np.concatenate([t.ravel() for t, _ in data])
    guess = np.concatenate([p.ravel() for _, p in data])[truth != 255]
    truth = truth[truth != 255]
    iou, acc, dice = [], [], []
    for k in range(3):
        both, one, other = ((truth == k) & (guess == k)).sum(), (truth == k).sum(), (guess == k).sum()
        iou.append(both / (one + other - both))
        acc.append(both / one)
        dice.append(2 * both / (one + other))
    return {
        "mIoU": float(np.mean(iou)),
        "mAcc": float(np.mean(acc)),
        "aAcc": float((truth == guess).mean()),
        "mDice": float(np.mean(dice)),
    }


def score(data: list[tuple[np.ndarray, np.ndarray]], batch_size: int, size: int) -> dict[str, float]:
    metric = MeanIoU()
    metric.dataset_meta = {"classes": CLASSES}
    for start in range(0, len(data), batch_size):
        chunk = data[start : start + batch_size]
        image = Image(torch.zeros(3, 1, 1, dtype=torch.uint8))
        samples = [Sample(image, SegTarget(Mask(torch.from_numpy(t))), Meta("", t.shape, t.shape)) for t, _ in chunk]
        metric.process(samples, [SegPrediction(torch.from_numpy(p)) for _, p in chunk])
    return metric.evaluate(size)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_means_equal_an_independent_count(batch_size: int) -> None:
    data = pairs(13)
    assert score(data, batch_size, 13) == pytest.approx(by_hand(data), rel=1e-12)


def test_the_score_of_an_image_is_the_mean_iou_of_the_classes_in_it() -> None:
    data, metric, image = pairs(3), MeanIoU(), Image(torch.zeros(3, 1, 1, dtype=torch.uint8))
    metric.dataset_meta = {"classes": CLASSES}
    samples = [Sample(image, SegTarget(Mask(torch.from_numpy(t))), Meta("", t.shape, t.shape)) for t, _ in data]
    metric.process(samples, [SegPrediction(torch.from_numpy(p)) for _, p in data])
    assert metric.batch_scores == pytest.approx([by_hand([one])["mIoU"] for one in data])


def test_a_metric_can_be_used_again_from_nothing() -> None:
    data = pairs(4)
    metric = MeanIoU()
    metric.dataset_meta = {"classes": CLASSES}
    for _ in range(2):
        for truth, guess in data:
            metric.add(torch.from_numpy(truth), torch.from_numpy(guess))
        assert metric.evaluate(4) == pytest.approx(by_hand(data))


def test_confusions_of_the_last_evaluation_are_drawn() -> None:
    metric = MeanIoU()
    metric.dataset_meta = {"classes": CLASSES}
    assert metric.pictures() == {}
    for truth, guess in pairs(4):
        metric.add(torch.from_numpy(truth), torch.from_numpy(guess))
    metric.evaluate(4)
    assert metric.confusion is not None
    assert metric.confusion.sum() == sum((truth != 255).sum() for truth, _ in pairs(4))
    assert metric.pictures()["confusion"].ndim == 3


def _score_part(rank: int, world_size: int) -> dict[str, float]:
    return score(pairs(21)[rank::world_size], 2, 21)


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_number_of_processes_changes_no_bit(in_processes: Callable[..., list[Any]], world_size: int) -> None:
    assert in_processes(_score_part, world_size) == [score(pairs(21), 1, 21)] * world_size
