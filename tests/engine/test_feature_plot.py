"""Pictures of features: the plane, the numbers, and the tool on a tiny config."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from PIL import Image

from densevit.engine.feature_plot import (
    FeatureMap,
    choose_samples,
    draw,
    map_features,
    most_frequent,
    project,
    silhouette,
)
from densevit.errors import ConfigError, DataError, InstallationError
from densevit.registry import MODELS

pytest.importorskip("sklearn")

COLOURS = {"blue": (200, 60, 40), "green": (50, 190, 60), "red": (40, 60, 210)}  # as OpenCV orders them

Call = Callable[..., int]


def blobs(classes: int, count: int, noise: float, dim: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Return features around one centre per class, and their classes."""
    rng = np.random.default_rng(0)
    centres, labels = rng.normal(size=(classes, dim)), np.arange(classes).repeat(count)
    return (centres[labels] + noise * rng.normal(size=(len(labels), dim))).astype(np.float32), labels


def picture(labels: np.ndarray, classes: list[str], explained: Any = None) -> Figure:
    points = np.random.default_rng(0).normal(size=(len(labels), 2)).astype(np.float32)
    return draw(FeatureMap(points, points, explained, labels, [""] * len(labels), classes), "a title")


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for each in figure.legends for text in each.get_texts()]


def looks(figure: Figure) -> list[tuple[int, Any, bool]]:
    """Return the number of points of each group that was drawn, how they look, and whether they are grey."""
    groups = [(len(g.get_offsets()), g.get_facecolor()[0], g.get_paths()[0]) for g in figure.axes[0].collections]
    return [(count, (*colour, len(path)), len(set(colour[:3])) == 1) for count, colour, path in groups]


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_classes_that_are_apart_stay_apart_in_the_plane(method: str) -> None:
    features, labels = blobs(3, 30, 0.1)
    points, explained = project(features, method)
    assert points.shape == (90, 2)
    assert points.dtype == np.float32
    assert silhouette(points, labels) > 0.7
    assert np.array_equal(project(features, method)[0], points)
    if method == "pca":
        assert explained is not None
        assert explained[0] > explained[1] > 0
        assert sum(explained) > 0.8
    else:
        assert explained is None


def test_principal_components_explain_the_variance_that_the_points_have() -> None:
    features, _ = blobs(4, 20, 0.5)
    points, explained = project(features, "pca")
    shares = points.var(axis=0) / features.var(axis=0).sum()
    np.testing.assert_allclose(shares, explained, rtol=1e-4)
    line, shares_of_line = project(features[:, :1], "pca")
    assert shares_of_line == (pytest.approx(1.0), 0.0)
    assert not line[:, 1].any()


@pytest.mark.parametrize("method", ["tsne", "pca"])
@pytest.mark.parametrize("shape", [(3, 8), (4, 1), (12, 200)])
def test_few_samples_and_channels_have_a_plane_too(method: str, shape: tuple[int, int]) -> None:
    points, _ = project(np.random.default_rng(0).normal(size=shape).astype(np.float32), method)
    assert points.shape == (shape[0], 2)
    assert np.isfinite(points).all()


@pytest.mark.parametrize("features", [np.zeros((2, 4)), np.ones((9, 4))])
def test_what_has_no_plane_is_refused(features: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"at least 3|are equal"):
        project(features, "tsne")


def test_the_score_says_how_well_classes_separate() -> None:
    near, labels = blobs(3, 30, 0.05)
    wide, _ = blobs(3, 30, 1.0)
    shuffled = np.random.default_rng(0).permutation(labels)
    assert silhouette(near, labels) > 0.9 > silhouette(wide, labels) > silhouette(wide, shuffled)
    assert abs(silhouette(near, shuffled)) < 0.1
    assert np.isnan(silhouette(near, np.zeros(90)))
    assert np.isnan(silhouette(near[:3], np.arange(3)))


def test_samples_are_drawn_at_random_but_always_the_same() -> None:
    assert choose_samples(5, 10) == [0, 1, 2, 3, 4]
    chosen = choose_samples(1000, 100)
    assert chosen == sorted(set(chosen)) == choose_samples(1000, 100)
    assert len(chosen) == 100
    assert 300 < np.mean(chosen) < 700
    with pytest.raises(ConfigError, match="at least 3"):
        choose_samples(9, 0)


def test_all_of_few_classes_are_told_apart() -> None:
    labels = np.arange(60) % 20
    figure = picture(labels, [f"class {i}" for i in range(20)])
    assert legend(figure) == [f"class {i} (3)" for i in range(20)]
    assert [count for count, _, _ in looks(figure)] == [3] * 20
    assert len({look for _, look, _ in looks(figure)}) == 20
    assert not any(grey for _, _, grey in looks(figure))


def test_of_many_classes_the_most_frequent_are_coloured() -> None:
    assert most_frequent(np.array([-1, -1, -1, 2, 2, 0]), 1) == [2]
    labels = np.concatenate([np.full(11 + i, i) for i in range(30)])
    figure = picture(labels, [f"class {i}" for i in range(30)])
    others = sum(11 + i for i in range(10))
    assert legend(figure) == [*(f"class {i} ({11 + i})" for i in range(10, 30)), f"other classes ({others})"]
    (count, _, grey), *rest = looks(figure)  # drawn first, so that it hides nothing
    assert (count, grey) == (others, True)
    assert [count for count, _, _ in rest] == [11 + i for i in range(10, 30)]


def test_samples_without_a_class_have_one_colour_and_no_legend() -> None:
    figure = picture(np.full(50, -1), [], (0.5, 0.25))
    assert legend(figure) == []
    assert [(count, grey) for count, _, grey in looks(figure)] == [(50, False)]
    assert "25.0%" in figure.axes[0].get_ylabel()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a config of a tiny ViT on noisy pictures of three colours."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 5)):
        for name, colour in COLOURS.items():
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(rng.normal(colour, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
                assert cv2.imwrite(str(folder / f"{i}.png"), pixels)
    vit = {"type": "ViT", "dim": 16, "depth": 2, "num_heads": 2, "hidden": 32, "img_size": 32, "patch_size": 8}
    dataset = {"type": "ImageFolderDataset", "data_root": str(tmp_path / "images")}
    loader = {"batch_size": 4, "num_workers": 0}
    augment = [{"type": "RandomCrop", "size": 16}]  # which must not be used
    cfg = Config(
        {
            "default_scope": "densevit",
            "model": {
                "type": "DenseModel",
                "backbone": {**vit, "token": True},
                "head": {"type": "ClassificationHead", "num_classes": 3},
            },
            "train_dataloader": {**loader, "dataset": {**dataset, "split": "train", "transforms": augment}},
            "val_dataloader": {**loader, "dataset": {**dataset, "split": "val", "transforms": []}},
            "test_dataloader": {**loader, "dataset": {**dataset, "split": "val", "transforms": []}},
        }
    )
    cfg.dump(tmp_path / "tiny.py")
    torch.manual_seed(0)
    torch.save({"state_dict": MODELS.build(cfg.model).state_dict()}, tmp_path / "random.pth")
    return tmp_path / "tiny.py"


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_the_tool_writes_a_picture_and_its_values(call: Call, path: Path, capsys: Any, method: str) -> None:
    out = path.parent / "pictures" / "features.png"
    assert (
        call("plot_features", path, path.parent / "random.pth", "--method", method, "--out", out, "--device", "cpu")
        == 0
    )
    values = np.load(out.with_suffix(".npz"))  # without pickles
    assert values["features"].shape == (15, 16)
    assert values["points"].shape == (15, 2)
    assert values["labels"].tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert values["classes"].tolist() == ["blue", "green", "red"]
    assert [Path(p).parent.name for p in values["paths"]] == [values["classes"][i] for i in values["labels"]]
    assert Image.open(out).size[0] > 500
    text = capsys.readouterr().out
    assert f"{silhouette(values['features'], values['labels']):.4f}" in text
    assert ("variance along the first axis" in text) == (method == "pca")


def test_training_data_are_prepared_as_the_test_split_is(path: Path) -> None:
    cfg = Config.fromfile(path)
    found = map_features(cfg, path.parent / "random.pth", "train", "pca", 2000, "cpu")
    assert len(found.points) == 18
    again = map_features(cfg, path.parent / "random.pth", "train", "pca", 6, "cpu")
    assert len(again.points) == 6
    for name, feature in zip(again.paths, again.features, strict=True):
        np.testing.assert_allclose(feature, found.features[found.paths.index(name)], rtol=1e-4, atol=1e-6)


def test_a_task_without_a_class_per_sample_is_drawn_in_one_colour(
    call: Call, config: Config, tmp_path: Path, capsys: Any
) -> None:
    config.dump(tmp_path / "seg.py")
    torch.save({"state_dict": MODELS.build(config.model).state_dict()}, tmp_path / "seg.pth")
    out = tmp_path / "seg.png"
    assert call("plot_features", tmp_path / "seg.py", tmp_path / "seg.pth", "--out", out, "--device", "cpu") == 0
    values = np.load(tmp_path / "seg.npz")
    assert values["labels"].tolist() == [-1] * 5
    assert values["features"].shape == (5, 24)
    assert "silhouette" not in capsys.readouterr().out
    assert out.is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.pth"], "none.pth does not exist"),
        (["random.pth", "--limit", "2"], "at least 3"),
        (["random.pth", "--cfg-options", "val_dataloader=None"], "no val_dataloader"),
    ],
)
def test_what_is_wrong_is_told(call: Call, path: Path, capsys: Any, arguments: list[str], message: str) -> None:
    assert call("plot_features", path, path.parent / arguments[0], *arguments[1:]) == 2
    assert message in capsys.readouterr().err


def test_without_scikit_learn_the_way_to_install_it_is_said(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)
    with pytest.raises(InstallationError, match=r'pip install "densevit\[plots\]"'):
        map_features(Config.fromfile(path), path.parent / "random.pth", "val", "tsne", 100, "cpu")
