"""A whole run of classification: train, resume, test, score, predict, look."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from densevit.data import cifar

COLOURS = {"blue": (200, 60, 40), "green": (50, 190, 60), "red": (40, 60, 210)}  # as OpenCV orders them

Call = Callable[..., int]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return the root of 8 noisy pictures of each colour to train on and 3 to test."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        for name, colour in COLOURS.items():
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for i in range(count):
                picture = np.clip(rng.normal(colour, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
                assert cv2.imwrite(str(tmp_path / "images" / split / name / f"{i}.png"), picture)
    return tmp_path / "images"


def config_of(dataset: dict[str, Any], splits: tuple[str, str], num_classes: int) -> Config:
    mit = {"type": "MiT", "dims": (8, 16, 16, 24), "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 3), "token": True}
    augment = [{"type": "RandomCrop", "size": 32, "padding": 4}, {"type": "RandomHorizontalFlip"}]
    loader = {"batch_size": 8, "num_workers": 0}
    test = {**loader, "dataset": {**dataset, "split": splits[1], "transforms": []}}
    return Config(
        {
            "default_scope": "densevit",
            "model": {
                "type": "DenseModel",
                "backbone": mit,
                "head": {"type": "ClassificationHead", "num_classes": num_classes, "label_smoothing": 0.1},
                "precision": "fp32",
            },
            "train_dataloader": {**loader, "dataset": {**dataset, "split": splits[0], "transforms": augment}},
            "val_dataloader": test,
            "test_dataloader": test,
            "train_cfg": {"by_epoch": False, "max_iters": 30, "val_interval": 15},
            "val_cfg": {},
            "test_cfg": {},
            "val_evaluator": {"type": "Accuracy"},
            "test_evaluator": {"type": "Accuracy"},
            "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "AdamW", "lr": 3e-3}},
            "default_hooks": {
                "checkpoint": {"type": "CheckpointHook", "interval": 15, "save_best": "top1"},
                "logger": {"type": "LoggerHook", "interval": 5, "log_metric_by_epoch": False},
                "report": {"type": "ReportHook"},
            },
            "visualizer": {"type": "Visualizer", "vis_backends": [{"type": "LocalVisBackend"}]},
            "log_processor": {"by_epoch": False},
            "randomness": {"seed": 3},
        }
    )


@pytest.fixture
def path(images: Path, tmp_path: Path) -> Path:
    dataset = {"type": "ImageFolderDataset", "data_root": str(images)}
    config_of(dataset, ("train", "val"), len(COLOURS)).dump(tmp_path / f"{tmp_path.name}.py")
    return tmp_path / f"{tmp_path.name}.py"


def test_a_user_s_afternoon(
    call: Call, path: Path, images: Path, tmp_path: Path, capsys: Any, parse_page: Callable[[str], Any]
) -> None:
    """Train, resume, test with pictures, score the files again, predict new images, look at the data."""
    work = tmp_path / "work"
    assert call("train", path, "--work-dir", work, "--cfg-options", "train_cfg.max_iters=15") == 0
    assert call("train", path, "--work-dir", work, "--resume") == 0
    assert "| top1 |" in (work / "results.md").read_text()
    assert "![val_confusion](val_confusion.png)" in (work / "results.md").read_text()
    assert len(list((work / "predictions").glob("*.png"))) == 4
    page = parse_page((work / "report.html").read_text())
    assert "Worst samples, by probability of the truth" in page.text
    assert len(page.alternatives) == 1 + 1 + 4 + 4 + 4  # curves, confusion, samples

    folders = {name: tmp_path / name for name in ("tested", "out", "show")}
    options = ("--work-dir", folders["tested"], "--out", folders["out"], "--show-dir", folders["show"])
    assert call("test", path, work / "iter_30.pth", *options) == 0
    scores = json.loads(next(folders["tested"].glob("*/*.json")).read_text())
    assert scores["top1"] > 0.8
    assert min(Image.open(folders["tested"] / "confusion.png").size) > 200
    page = parse_page((folders["tested"] / "report.html").read_text())
    assert f"checkpoint{work / 'iter_30.pth'}" in page.text
    assert "green" in page.text
    for name in COLOURS:
        assert Image.open(folders["show"] / name / "0.jpg").height >= 160
        saved = json.loads((folders["out"] / name / "0.json").read_text())
        assert sum(saved["scores"]) == pytest.approx(1, abs=1e-5)

    capsys.readouterr()
    assert call("score", path, folders["out"]) == 0
    assert f"{scores['mAcc']:.4f}" in capsys.readouterr().out
    assert call("test", path, work / "iter_30.pth", "--work-dir", tmp_path / "t", "--tta") == 2
    assert "leave out --slide and --tta" in capsys.readouterr().err

    assert call("predict", path, work / "iter_30.pth", images / "val", "--out", tmp_path / "new") == 0
    entries = json.loads((tmp_path / "new/predictions.json").read_text())
    right = [Path(entry["input"]).parent.name == entry["class"] for entry in entries]
    assert sum(right) / len(right) == pytest.approx(scores["top1"])
    assert Path(entries[0]["overlay"]).is_file()
    assert Path(entries[0]["output"]).is_file()

    assert call("browse_dataset", path, "--count", 3, "--out", tmp_path / "sheet.png") == 0
    assert np.asarray(Image.open(tmp_path / "sheet.png")).std() > 20


def test_a_corrupt_image_is_replaced_in_training_and_left_out_of_the_test(
    call: Call, path: Path, images: Path, tmp_path: Path
) -> None:
    for file in (images / "train/red/0.png", images / "val/red/0.png"):
        file.write_bytes(file.read_bytes()[:200])
    assert call("train", path, "--work-dir", tmp_path / "work", "--cfg-options", "train_cfg.max_iters=15") == 0
    listed = [json.loads(line) for line in (tmp_path / "work/bad_samples.jsonl").read_text().splitlines()]
    assert {(Path(entry["path"]).parent.parent.name, entry["training"]) for entry in listed} == {
        ("train", True),
        ("val", False),
    }


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "model.head.num_classes=4",
            "the dataset has 3 classes (blue, green, red) but model.head.num_classes is 4",
        ),
        ("val_dataloader.dataset.classes=['red','green','cyan']", "1 classes have no folder: cyan; 1 folders are no"),
        ("model.backbone.token=False", None),
    ],
)
def test_what_does_not_fit_is_told_before_training(
    call: Call, path: Path, tmp_path: Path, capsys: Any, option: str, message: str | None
) -> None:
    options = ("--work-dir", tmp_path / "work", "--cfg-options", option, "train_cfg.max_iters=1")
    assert call("train", path, *options) == (2 if message else 0)
    assert (message or "") in capsys.readouterr().err


def test_images_inside_of_a_file_are_tested_drawn_and_scored(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    rows = {"train": 6, "test": 6}
    layouts = tuple(layout._replace(rows=rows) for layout in cifar.LAYOUTS[100])
    monkeypatch.setattr(cifar, "LAYOUTS", {100: layouts})
    folder = tmp_path / "data/cifar-100-binary"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("train.bin", "test.bin"):
        rng.integers(0, 100, (6, 3074), dtype=np.uint8).tofile(folder / name)
    dataset = {"type": "CIFARDataset", "data_root": str(tmp_path / "data"), "num_classes": 100}
    path = tmp_path / f"{tmp_path.name}.py"
    config_of(dataset, ("train", "test"), 100).dump(path)
    work, out, show = (tmp_path / name for name in ("work", "out", "show"))
    assert call("train", path, "--work-dir", work, "--cfg-options", "train_cfg.max_iters=2") == 0
    assert sorted(p.name for p in (work / "predictions").iterdir())[0] == "00000_test.png"
    assert call("test", path, work / "iter_2.pth", "--work-dir", tmp_path / "t", "--out", out, "--show-dir", show) == 0
    assert sorted(p.name for p in (out / "test").iterdir()) == [f"{i}.json" for i in range(6)]
    assert Image.open(show / "test/5.jpg").height >= 160
    capsys.readouterr()
    scores = json.loads(next((tmp_path / "t").glob("*/*.json")).read_text())
    assert call("score", path, out) == 0
    assert f"{scores['top5']:.4f}" in capsys.readouterr().out
    assert call("browse_dataset", path, "--count", 2, "--out", tmp_path / "sheet.png") == 0
