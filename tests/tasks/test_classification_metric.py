"""Scores against counts by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from densevit.data.class_prediction import ClassPrediction
from densevit.engine.accuracy import Accuracy
from densevit.errors import ConfigError
from densevit.structures import ClassTarget, Meta, Sample


def data(count: int, num_classes: int = 7) -> tuple[Tensor, Tensor]:
    """Random labels, none of the last class, and scores that are right now and then."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(num_classes - 1, (count,), generator=generator)
    scores = torch.rand(count, num_classes, generator=generator)
    scores[torch.arange(count), truth] += 0.3
    return truth, scores.softmax(1)


def metric_of(num_classes: int, **options: Any) -> Accuracy:
    metric = Accuracy(**options)
    metric.dataset_meta = {"classes": [f"class {i}" for i in range(num_classes)]}
    return metric


def score(truth: Tensor, scores: Tensor, batch_size: int = 4) -> dict[str, float]:
    metric = metric_of(scores.shape[1])
    image, meta = torch.zeros(3, 1, 1), Meta("", (1, 1), (1, 1))
    for labels, chunk in zip(truth.split(batch_size), scores.split(batch_size), strict=True):
        samples = [Sample(image, ClassTarget(label), meta) for label in labels]
        metric.process(samples, [ClassPrediction(s) for s in chunk])
    return metric.evaluate(len(truth))


def by_hand(truth: Tensor, scores: Tensor) -> dict[str, float]:
    order = scores.numpy().argsort(axis=1)[:, ::-1]
    labels = truth.numpy()
    right = order[:, 0] == labels
    return {
        "top1": float(right.mean()),
        "top5": float(np.mean([t in row for t, row in zip(labels, order[:, :5], strict=True)])),
        "mAcc": float(np.mean([right[labels == k].mean() for k in np.unique(labels)])),
    }


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_results_equal_an_independent_count(batch_size: int) -> None:
    assert score(*data(43), batch_size) == pytest.approx(by_hand(*data(43)), rel=1e-12)


def test_the_score_of_a_sample_is_the_probability_of_its_class() -> None:
    metric, meta = metric_of(3), Meta("", (1, 1), (1, 1))
    labels = (torch.tensor(2), torch.tensor(0), torch.tensor([0.3, 0.7, 0.0]))  # the last is mixed
    samples = [Sample(torch.zeros(3, 1, 1), ClassTarget(label), meta) for label in labels]
    metric.process(samples, [ClassPrediction(torch.tensor([0.1, 0.3, 0.6]))] * 3)
    assert metric.batch_scores == pytest.approx([0.6, 0.1, 0.3])


def test_top_k_that_no_prediction_could_miss_are_left_out() -> None:
    truth, scores = data(20, num_classes=5)
    assert set(score(truth, scores)) == {"top1", "mAcc"}
    metric = metric_of(5, topk=(1, 2, 3))
    metric.add(truth, scores)
    assert set(metric.evaluate(20)) == {"top1", "top2", "top3", "mAcc"}
    with pytest.raises(ConfigError, match=r"topk .* not \(0,\)"):
        Accuracy(topk=(0,))


def test_a_metric_can_be_used_again_from_nothing() -> None:
    metric = metric_of(7)
    for _ in range(2):
        metric.add(*data(9))
        assert metric.evaluate(9) == pytest.approx(by_hand(*data(9)))


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the (title, columns, rows) that are printed."""
    printed: list[Any] = []
    monkeypatch.setattr("densevit.engine.accuracy.print_table", lambda *table: printed.append(table))
    return printed


def test_the_table_holds_precision_recall_and_f1_of_each_class(tables: list[Any]) -> None:
    metric = metric_of(3)
    guess = torch.tensor([0, 0, 0, 1, 1])
    metric.add(torch.tensor([0, 0, 1, 1, 1]), torch.eye(3)[guess])
    metric.evaluate(5)
    [(_, columns, rows)] = tables
    assert columns == ["class", "precision %", "recall %", "F1 %", "samples"]
    assert rows[0] == ("class 0", pytest.approx(200 / 3), 100, pytest.approx(80), 2)
    assert rows[1] == ("class 1", 100, pytest.approx(200 / 3), pytest.approx(80), 3)
    assert rows[2][4] == 0
    assert rows[3] == ("mean", pytest.approx(250 / 3), pytest.approx(250 / 3), pytest.approx(80), 5)


def test_of_many_classes_the_best_and_the_worst_are_printed(tables: list[Any]) -> None:
    metric = metric_of(60)
    truth = torch.arange(60).repeat_interleave(60)
    guess = torch.where(torch.arange(60).repeat(60) < truth, truth, (truth + 1) % 60)  # class k is right k times
    metric.add(truth, torch.eye(60)[guess])
    metric.evaluate(len(truth))
    [(title, _, rows)] = tables
    assert "10 of the best" in title
    names = [row[0] for row in rows]
    assert len(names) == 21
    assert names[0] == "class 59"
    assert names[-2] == "class 0"
    assert names[-1] == "mean"


@pytest.mark.parametrize("num_classes", [3, 30, 60])
def test_confusions_are_drawn_row_by_row(num_classes: int) -> None:
    metric = metric_of(num_classes)
    assert metric.pictures() == {}
    metric.add(torch.arange(num_classes - 1), torch.eye(num_classes)[: num_classes - 1])
    metric.evaluate(num_classes - 1)
    assert metric.confusion is not None
    assert metric.confusion.sum() == num_classes - 1
    picture = metric.pictures()["confusion"]
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    dark = (picture.astype(int).sum(-1) < 300) & (picture[..., 2] > 80)  # the blue of a share of one
    rows, columns = np.nonzero(dark[:, : int(0.8 * dark.shape[1])])
    assert np.corrcoef(rows, columns)[0, 1] > 0.5, "the diagonal runs from top left to bottom right"


def test_more_classes_than_a_matrix_is_worth_are_scored_without_one() -> None:
    truth, scores = data(30, num_classes=1001)
    metric = metric_of(1001)
    metric.add(truth, scores)
    assert metric.evaluate(30) == pytest.approx(by_hand(truth, scores))
    assert metric.pictures() == {}


def _score_part(rank: int, world_size: int) -> dict[str, float]:
    truth, scores = data(5)
    return score(truth[rank::world_size], scores[rank::world_size])


@pytest.mark.parametrize("world_size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_number_of_processes_changes_no_bit(in_processes: Callable[..., list[Any]], world_size: int) -> None:
    assert in_processes(_score_part, world_size) == [score(*data(5))] * world_size
