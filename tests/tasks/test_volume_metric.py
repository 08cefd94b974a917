"""Scores of volumes against MONAI's, and what becomes of classes that are missing."""

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance
from torch import Tensor
from torch.nn import functional as F

from densevit.errors import DataError
from densevit.structures import Meta, Sample, VolumeTarget
from densevit.tasks.medical import VolumeDice, VolumePrediction
from densevit.tasks.medical.metric import CaseScores

CLASSES = ("background", "liver", "spleen", "aorta")
Case = tuple[Tensor, Tensor, tuple[float, float, float]]


def blobs(seed: int, classes: int = 4, size: tuple[int, int, int] = (12, 15, 10)) -> Tensor:
    """Return smooth random regions, some of which touch the edge of the volume."""
    generator = torch.Generator().manual_seed(seed)
    noise = F.interpolate(torch.rand(1, classes, 4, 4, 4, generator=generator), size, mode="trilinear")
    return noise[0].argmax(0).to(torch.uint8)


def cases(count: int) -> list[Case]:
    """Truths, predictions that are alike, and sizes of voxels."""
    truths = [blobs(seed) for seed in range(count)]
    found = [t.roll(1, i % 3).where(blobs(50 + i) > 0, t) for i, t in enumerate(truths)]
    return [(t, f, (1.0, 0.75 + i, 2.5)) for i, (t, f) in enumerate(zip(truths, found, strict=True))]


def score(data: list[Case], names: list[str] | None = None, **options: Any) -> tuple[VolumeDice, dict[str, float]]:
    metric = VolumeDice(**options)
    metric.dataset_meta = {"classes": CLASSES}
    for i, (truth, found, spacing) in enumerate(data):
        target, size = VolumeTarget(truth, torch.tensor(spacing)), tuple(truth.shape)
        meta = Meta(names[i] if names else f"{i:02d}.nii.gz", size, size)
        metric.process([Sample(torch.zeros(1, *size), target, meta)], [VolumePrediction(found, meta.path)])
    return metric, metric.evaluate(len(data))


def one_hot(mask: Tensor) -> Tensor:
    return F.one_hot(mask.long(), len(CLASSES)).movedim(-1, 0)[None].float()


def monai_scores(data: list[Case]) -> Tensor:
    """Return ``(volumes, 3, classes)`` as MONAI computes them, on whole volumes."""
    rows = []
    for truth, found, spacing in data:
        pair = (one_hot(found), one_hot(truth))
        dice = compute_dice(*pair, include_background=False)
        hd95 = compute_hausdorff_distance(*pair, percentile=95, spacing=spacing)
        asd = compute_average_surface_distance(*pair, symmetric=True, spacing=spacing)
        rows.append(torch.cat((dice, hd95, asd)))
    return torch.stack(rows).double()


def test_means_equal_those_of_monai_on_anisotropic_voxels() -> None:
    data = [case for t, f, spacing in cases(2) for case in ((t, f, spacing), (f, t, spacing))]
    _, means = score(data)
    expected = monai_scores(data).mean((0, 2)).tolist()
    assert list(means) == ["mDice", "HD95", "ASD"]
    assert list(means.values()) == pytest.approx(expected, rel=1e-6)
    assert 0.1 < means["mDice"] < 0.95, "a case that tells something"


@pytest.mark.parametrize(("one", "other"), [(2, 6), (6, 2)])
def test_distances_are_in_millimetres(one: int, other: int) -> None:
    truth = torch.zeros(9, 9, 9, dtype=torch.uint8)
    found = truth.clone()
    truth[2, 2, one], found[2, 2, other] = 1, 1
    metric, means = score([(truth, found, (1.0, 1.0, 2.5))])
    assert means == {"mDice": 0.0, "HD95": 10.0, "ASD": 10.0}
    assert metric.evaluated[0].values[0].tolist() == pytest.approx([0, 10, 10, 0.0025, 0.0025])


def test_a_class_in_neither_is_left_out_and_in_only_one_has_dice_0_and_no_distance(
    caplog: pytest.LogCaptureFixture,
) -> None:
    truth, found = torch.zeros(2, 4, 4, 4, dtype=torch.uint8)
    truth[0], found[0] = 1, 1  # the liver is right, the spleen missed, the aorta nowhere
    truth[3] = 2
    metric, means = score([(truth, found, (1.0, 1.0, 1.0))])
    assert means == {"mDice": 0.5, "HD95": 0.0, "ASD": 0.0}
    nan = math.nan
    assert metric.evaluated[0].values[:, :2].flatten().tolist() == pytest.approx([1, 0, 0, nan, nan, nan], nan_ok=True)


def test_the_score_of_a_volume_is_its_mean_dice() -> None:
    for case in cases(2):
        metric, means = score([case])
        assert metric.batch_scores == pytest.approx([means["mDice"]])


def test_without_any_class_means_are_undefined() -> None:
    nothing = torch.zeros(3, 3, 3, dtype=torch.uint8)
    _, means = score([(nothing, nothing, (1.0, 1.0, 1.0))])
    assert all(math.isnan(value) for value in means.values())


def test_distances_can_be_left_out() -> None:
    data = cases(2)
    assert score(data, distances=False)[1] == {"mDice": score(data)[1]["mDice"]}


def test_a_volume_that_a_sampler_repeats_counts_once() -> None:
    data = cases(3)
    names = [f"{i}.nii" for i in range(3)]
    assert score([*data, data[1]], [*names, names[1]])[1] == score(data, names)[1]


def test_the_order_of_volumes_changes_no_bit() -> None:
    values = torch.rand(100, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    results = [CaseScores(f"{i}.nii", scores) for i, scores in enumerate(values)]
    metric = VolumeDice()
    metric.dataset_meta = {"classes": CLASSES}
    assert metric.compute_metrics(results[1::2] + results[::2]) == metric.compute_metrics(results)


def test_a_metric_can_be_used_again_from_nothing() -> None:
    metric, means = score(cases(2))
    metric.add("again.nii", *cases(1)[0])
    assert metric.evaluate(1) == score(cases(1))[1] != means


def test_scores_of_all_volumes_are_written(tmp_path: Path) -> None:
    data = cases(2)
    metric, _ = score(data)
    with metric.write(tmp_path).open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["volume"], row["class"]) for row in rows] == [
        (f"{i:02d}.nii.gz", name) for i in range(2) for name in CLASSES[1:]
    ]
    expected = monai_scores(data).transpose(1, 2).flatten(0, 1).tolist()
    found = [[float(row[name]) for name in ("dice", "hd95_mm", "asd_mm")] for row in rows]
    assert found == [pytest.approx(values, rel=1e-5) for values in expected]
    truth, _, spacing = data[1]
    volume = int((truth == 2).sum()) * math.prod(spacing) / 1000
    assert float(rows[4]["truth_ml"]) == pytest.approx(volume, rel=1e-5)


def test_what_does_not_fit_is_an_error() -> None:
    truth, found, spacing = cases(1)[0]
    with pytest.raises(DataError, match=r"00\.nii\.gz has labels on \(12, 15, 10\) voxels.*\(11, 15, 10\)"):
        score([(truth, found[1:], spacing)])
    with pytest.raises(DataError, match=r"00\.nii\.gz: class 9 is predicted, but there are 4 classes"):
        score([(truth, torch.full_like(found, 9), spacing)])
    metric = VolumeDice()
    sample = Sample(torch.zeros(1, 2, 2, 2), None, Meta("new.nii", (2, 2, 2), (2, 2, 2)))
    with pytest.raises(DataError, match=r"new\.nii has no labels"):
        metric.process([sample], [VolumePrediction(found, "new.nii")])


def _score_part(rank: int, world_size: int) -> dict[str, float]:
    names = [f"{i}.nii" for i in range(5)]
    return score(cases(5)[rank::world_size], names[rank::world_size])[1]


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
def test_the_number_of_processes_changes_no_bit(in_processes: Callable[..., list[Any]], world_size: int) -> None:
    alone = _score_part(0, 1)
    assert in_processes(_score_part, world_size) == [alone] * world_size
