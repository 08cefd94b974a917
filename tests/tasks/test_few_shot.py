"""Few-shot evaluation: the probe, the choice of images, and the tool on a tiny config."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import Tensor

from densevit.errors import DataError
from densevit.registry import MODELS
from densevit.tasks.classification.few_shot import RIDGES, choose_shots, fit_probe

COLOURS = {"blue": (200, 60, 40), "green": (50, 190, 60), "red": (40, 60, 210)}  # as OpenCV orders them

Call = Callable[..., int]


def blobs(classes: int, count: int, noise: float, seed: int, dim: int = 32) -> tuple[Tensor, Tensor]:
    """Return features around one centre per class, whose channels differ in scale and mean, and their classes."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, dim, generator=generator)
    scales, means = torch.rand(dim, generator=generator) * 100 + 0.01, torch.randn(dim, generator=generator) * 50
    labels = torch.arange(classes).repeat(count)
    samples = torch.randn(len(labels), dim, generator=torch.Generator().manual_seed(1 + seed))
    return (centres[labels] + noise * samples) * scales + means, labels


@pytest.mark.parametrize("count", [1, 5, 50])
def test_separable_classes_are_told_apart(count: int) -> None:
    probe = fit_probe(*blobs(5, count, 0.05, 0), 5)
    assert probe.accuracy(*blobs(5, 20, 0.05, 1)) == 1.0


def test_more_shots_are_better_on_noisy_features() -> None:
    test = blobs(10, 100, 1.5, 99)
    accuracies = [
        sum(fit_probe(*blobs(10, count, 1.5, seed), 10).accuracy(*test) for seed in range(5)) / 5
        for count in (1, 5, 25, 100)
    ]
    assert accuracies == sorted(accuracies)
    assert 0.15 < accuracies[0] < accuracies[3] - 0.2


def test_a_feature_that_is_constant_or_rare_classes_do_no_harm() -> None:
    features, labels = blobs(3, 10, 0.05, 0)
    features[:, 4] = 7.0
    test, truth = blobs(3, 10, 0.05, 1)
    assert fit_probe(features, labels, 3).accuracy(test, truth) == 1.0
    uneven = torch.cat([torch.where(labels == 0)[0], torch.where(labels == 1)[0][:2], torch.where(labels == 2)[0][:2]])
    assert fit_probe(features[uneven], labels[uneven], 3).accuracy(test, truth) > 0.95


def test_the_fit_is_regularised_least_squares_of_standardised_features() -> None:
    features, labels = blobs(4, 6, 1.0, 0, dim=8)
    probe = fit_probe(features, labels, 4)
    x = features.double()
    x = torch.cat([(x - x.mean(0)) / x.std(0, correction=0), torch.ones(24, 1)], dim=1)
    penalty = torch.diag(torch.tensor([probe.ridge * 8] * 8 + [0.0], dtype=torch.float64))
    y = 2 * torch.nn.functional.one_hot(labels, 4).double() - 1
    expected = x @ torch.linalg.solve(x.mT @ x + penalty, x.mT @ y)
    torch.testing.assert_close(features.double() @ probe.weight + probe.bias, expected)


def test_the_strength_is_that_which_classifies_left_out_samples_best() -> None:
    features, labels = blobs(4, 6, 1.5, 0, dim=40)
    x = features.double()
    x = (x - x.mean(0)) / x.std(0, correction=0)
    y = 2 * torch.nn.functional.one_hot(labels, 4).double() - 1
    found = []
    for ridge in RIDGES:
        right = 0
        for i in range(24):
            rest = [j for j in range(24) if j != i]
            a = torch.cat([x, torch.ones(24, 1)], dim=1)
            penalty = torch.diag(torch.tensor([ridge * 40] * 40 + [0.0], dtype=torch.float64))
            w = torch.linalg.solve(a[rest].mT @ a[rest] + penalty, a[rest].mT @ y[rest])
            right += int((a[i] @ w).argmax() == labels[i])
        found.append(right)
    assert len(set(found)) > 1
    assert fit_probe(features, labels, 4).ridge == RIDGES[found.index(max(found))]
    one = torch.arange(4)
    assert fit_probe(features[one], labels[one], 4).ridge == RIDGES[0]


def test_shots_are_of_each_class_and_more_include_the_fewer() -> None:
    labels = torch.randint(0, 5, (200,), generator=torch.Generator().manual_seed(0))
    few, many, other = (choose_shots(labels, "abcde", n, seed) for n, seed in ((2, 0), (7, 0), (7, 1)))
    assert torch.bincount(labels[many]).tolist() == [7] * 5
    assert set(few.tolist()) < set(many.tolist())
    assert set(other.tolist()) != set(many.tolist())
    assert torch.equal(many, choose_shots(labels, "abcde", 7, 0))


def test_classes_with_too_few_images_are_named() -> None:
    with pytest.raises(DataError, match=r"2 classes have fewer than 3 images: cat \(2\), cow \(0\)\. Ask for fewer"):
        choose_shots(torch.tensor([0, 0, 1, 1, 1, 1]), ["cat", "dog", "cow"], 3, 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a config of a tiny ViT on noisy pictures of three colours, of which one has another size."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 4)):
        for name, colour in COLOURS.items():
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                size = (48, 32, 3) if i == 1 else (32, 32, 3)
                picture = np.clip(rng.normal(colour, 30, size), 0, 255).astype(np.uint8)
                assert cv2.imwrite(str(folder / f"{i}.png"), picture)
    vit = {"type": "ViT", "dim": 16, "depth": 2, "num_heads": 2, "hidden": 32, "img_size": 32, "patch_size": 8}
    dataset = {"type": "ImageFolderDataset", "data_root": str(tmp_path / "images")}
    augment = [{"type": "RandomCrop", "size": 16}]  # which must not be used
    loader = {"batch_size": 5, "num_workers": 0}
    cfg = Config(
        {
            "default_scope": "densevit",
            "model": {
                "type": "DenseModel",
                "backbone": {**vit, "token": True},
                "head": {"type": "ClassificationHead", "num_classes": 7},
            },
            "train_dataloader": {**loader, "dataset": {**dataset, "split": "train", "transforms": augment}},
            "test_dataloader": {**loader, "dataset": {**dataset, "split": "val", "transforms": []}},
        }
    )
    cfg.dump(tmp_path / f"{tmp_path.name}.py")
    torch.manual_seed(0)
    torch.save({"state_dict": MODELS.build(cfg.model).state_dict()}, tmp_path / "random.pth")
    return tmp_path / f"{tmp_path.name}.py"


def test_colours_are_learnt_from_random_features(call: Call, path: Path, capsys: Any) -> None:
    out = path.parent / "scores" / "few_shot.json"
    assert (
        call(
            "few_shot", path, path.parent / "random.pth", "--shots", 1, 5, "--seeds", 2, "--out", out, "--device", "cpu"
        )
        == 0
    )
    content = json.loads(out.read_text())
    assert (content["backbone"], content["features"], content["classes"], content["test_images"]) == ("ViT", 16, 3, 12)
    assert [result["shots"] for result in content["results"]] == [1, 5]
    last = content["results"][1]
    assert last["top1"] > 0.9
    assert last["top1"] == pytest.approx(sum(last["top1_per_seed"]) / 2)
    assert f"{last['top1']:.4f}" in capsys.readouterr().out


def test_another_backbone_is_named_on_the_command_line(call: Call, path: Path) -> None:
    out, options = path.parent / "few_shot.json", {"type": "mit_b0", "token": True}
    from densevit.registry import BACKBONES

    torch.save(BACKBONES.build(options).state_dict(), path.parent / "mit.pth")
    arguments = ("--model", "mit_b0", "--shots", 2, "--seeds", 1, "--out", out, "--device", "cpu")
    assert call("few_shot", path, path.parent / "mit.pth", *arguments) == 0
    content = json.loads(out.read_text())
    assert (content["backbone"], content["features"], content["results"][0]["std"]) == ("mit_b0", 256, 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["random.pth", "--shots", "7"], "blue (6), green (6), red (6). Ask for fewer --shots"),
        (["random.pth", "--shots", "0"], "positive numbers"),
        (["none.pth", "--shots", "1"], "none.pth does not exist"),
        (["random.pth", "--model", "mit_b0", "--shots", "1"], "lacks 176 of the 176 tensors of the backbone MiT"),
        (["random.pth", "--cfg-options", "train_dataloader=None"], "no train_dataloader"),
    ],
)
def test_what_is_wrong_is_told(call: Call, path: Path, capsys: Any, arguments: list[str], message: str) -> None:
    assert call("few_shot", path, path.parent / arguments[0], *arguments[1:]) == 2
    assert message in capsys.readouterr().err
