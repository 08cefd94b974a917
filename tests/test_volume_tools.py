"""The tools on volumes, called as a user calls them."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

import densevit
from densevit.data.phantoms import CLASSES, make_phantoms
from densevit.errors import DataError
from densevit.registry import MODELS

Call = Callable[..., int]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    make_phantoms(tmp_path / "data", train=2, val=2)
    return tmp_path / "data"


@pytest.fixture
def path(data: Path, tmp_path: Path) -> Path:
    """Return a config of a very small UNETR on voxels of 5 mm; random.pth beside it has its weights."""
    window = (16, 16, 16)
    prepare = [
        {"type": "Orientationd", "axcodes": "RAS"},
        {"type": "Spacingd", "pixdim": (5, 5, 5)},
        {"type": "ScaleIntensityRanged", "a_min": -200, "a_max": 300, "b_min": 0, "b_max": 1, "clip": True},
        {"type": "SpatialPadd", "spatial_size": window},
    ]
    crop = [{"type": "RandSpatialCropd", "roi_size": window, "random_size": False}]
    dataset = {"type": "VolumeDataset", "data_root": str(data), "classes": CLASSES, "prepare": prepare}
    vit = {"type": "UNETRViT", "dim": 16, "depth": 2, "num_heads": 2, "hidden": 32, "taps": (1,), "patch_size": 8}
    model = {
        "type": "DenseModel",
        "backbone": {**vit, "img_size": 16},
        "head": {"type": "UNETRHead", "num_classes": 3, "feature_size": 2},
        "data_preprocessor": {"mean": (0,), "std": (1,)},
        "inference": {"type": "SlidingVolume", "window": window, "overlap": 0.25},
        "precision": "fp32",
    }
    loader = {"batch_size": 1, "num_workers": 0, "dataset": {**dataset, "section": "validation"}}
    config = Config(
        {
            "default_scope": "densevit",
            "model": model,
            "train_dataloader": {**loader, "dataset": {**dataset, "transforms": crop}},
            "train_cfg": {"by_epoch": False, "max_iters": 2, "val_interval": 2},
            "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "AdamW", "lr": 1e-3}},
            "val_dataloader": loader,
            "val_cfg": {"loss": False},
            "val_evaluator": {"type": "VolumeDice", "distances": False},
            "test_dataloader": loader,
            "test_cfg": {},
            "test_evaluator": {"type": "VolumeDice"},
            "custom_hooks": [{"type": "ReportHook"}],
            "log_processor": {"by_epoch": False},
            "randomness": {"seed": 1},
        }
    )
    config.dump(tmp_path / "unetr.py")
    torch.manual_seed(0)
    torch.save(MODELS.build(model).state_dict(), tmp_path / "random.pth")
    return tmp_path / "unetr.py"


def grid_of(file: Path) -> tuple[tuple[int, ...], np.ndarray]:
    volume = nibabel.load(file)
    return volume.shape, volume.affine


@pytest.mark.slow
def test_a_training_leaves_a_report(call: Call, path: Path, tmp_path: Path) -> None:
    work = tmp_path / "run"
    assert call("train", path, "--work-dir", work, "--check-data", "all") == 0
    assert "Worst samples, by mean Dice" in (work / "report.html").read_text()
    pictures = sorted((work / "predictions").iterdir())
    assert [file.name for file in pictures] == [f"0000{i}_validation_0000{i}.png" for i in range(2)]
    assert min(Image.open(pictures[0]).size) > 300


def test_what_a_test_writes_is_scored_alike(call: Call, path: Path, data: Path, tmp_path: Path, capsys: Any) -> None:
    out, show = tmp_path / "masks", tmp_path / "pictures"
    options = ("--work-dir", tmp_path / "work", "--out", out, "--show-dir", show, "--check-data", "all")
    assert call("test", path, tmp_path / "random.pth", *options) == 0
    scores = json.loads(next((tmp_path / "work").glob("*/*.json")).read_text())
    assert {"mDice", "HD95", "ASD"} <= scores.keys()
    files = sorted((data / "imagesTr").glob("validation*"))
    assert sorted(file.name for file in out.iterdir()) == [*(file.name for file in files), "volume_scores.csv"]
    for file in files:
        (shape, affine), (like, expected) = grid_of(out / file.name), grid_of(file)
        assert shape == like
        assert np.allclose(affine, expected)
        assert (show / f"{file.name.removesuffix('.nii.gz')}.jpg").is_file()
    with (out / "volume_scores.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert np.mean([float(row["dice"]) for row in rows]) == pytest.approx(scores["mDice"], abs=1e-5)
    capsys.readouterr()
    assert call("score", path, out) == 0
    printed = capsys.readouterr().out
    assert all(f"{scores[name]:.4f}" in printed for name in ("mDice", "HD95", "ASD"))


def test_files_become_labels_pictures_and_volumes_in_ml(
    call: Call, path: Path, data: Path, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "bad.nii.gz").write_bytes(b"no volume")
    inputs, out = (data / "imagesTr/validation_00000.nii.gz", tmp_path / "bad.nii.gz"), tmp_path / "predictions"
    assert call("predict", path, tmp_path / "random.pth", *inputs, "--out", out, "--device", "cpu") == 1
    printed = capsys.readouterr()
    assert "bad.nii.gz" in printed.err
    entry, bad = json.loads((out / "predictions.json").read_text())
    assert "error" in bad
    labels = np.asarray(nibabel.load(entry["output"]).dataobj)
    shape, affine = grid_of(inputs[0])
    assert labels.shape == shape
    voxel = abs(np.linalg.det(affine[:3, :3])) / 1000
    expected = {CLASSES[i]: int((labels == i).sum()) * voxel for i in (1, 2) if (labels == i).any()}
    assert entry["ml"] == pytest.approx(expected, rel=1e-4)
    assert all(f"{name} {ml:.4g} ml" in printed.out for name, ml in entry["ml"].items())
    assert min(Image.open(entry["overlay"]).size) > 200


def test_one_file_has_a_table(call: Call, path: Path, data: Path, tmp_path: Path, capsys: Any) -> None:
    file = data / "imagesTr/validation_00001.nii.gz"
    assert call("predict", path, tmp_path / "random.pth", file, "--tta", "--out", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    (entry,) = json.loads((tmp_path / "out/predictions.json").read_text())
    assert all(f"{ml:.4g}" in printed for ml in entry["ml"].values())
    assert "overlays/, outputs/, predictions.json" in printed


@pytest.mark.parametrize("split", ["train", "test"])
def test_samples_are_drawn_with_their_labels(call: Call, path: Path, tmp_path: Path, split: str) -> None:
    out = tmp_path / "sheet.png"
    assert call("browse_dataset", path, "--split", split, "--count", 2, "--out", out) == 0
    width, height = Image.open(out).size
    assert height > 2 * 500
    assert width > 3 * 300


def test_volumes_have_no_class_to_learn_from_few(call: Call, path: Path, tmp_path: Path, capsys: Any) -> None:
    assert call("few_shot", path, tmp_path / "random.pth", "--out", tmp_path / "few.json") == 2
    assert "VolumeDataset" in capsys.readouterr().err


def test_volumes_in_memory_are_predicted_as_their_file(path: Path, data: Path, tmp_path: Path) -> None:
    file = data / "imagesTr/validation_00000.nii.gz"
    predictor, image = densevit.load(tmp_path / "random.pth", path), nibabel.load(file)
    expected, result = predictor(file), predictor(image)
    assert torch.equal(result.prediction.mask, expected.prediction.mask)
    assert result.to_dict()["ml"] == expected.to_dict()["ml"]
    assert np.array_equal(result.plot(), expected.plot())
    files = result.save(tmp_path / "out")
    assert files["output"] == tmp_path / "out/outputs/input_0.nii.gz"
    assert files["output"].read_bytes() == expected.save(tmp_path / "out")["output"].read_bytes()
    assert result.describe(alone=False).startswith("input_0: ")


def test_an_array_has_voxels_of_one_millimetre(path: Path, tmp_path: Path) -> None:
    predictor = densevit.load(tmp_path / "random.pth", path)
    voxels = torch.linspace(-200, 300, 24 * 20 * 22).reshape(24, 20, 22)
    result = predictor(voxels)
    assert result.prediction.mask.shape == voxels.shape
    assert torch.equal(predictor(voxels.numpy().astype(np.float64)).prediction.mask, result.prediction.mask)
    assert np.array_equal(nibabel.load(result.save(tmp_path / "out")["output"]).affine, np.eye(4))
    assert sum(result.to_dict()["ml"].values()) == pytest.approx((result.prediction.mask > 0).sum().item() / 1000)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((2, 8, 8, 8)), r"input_0: .*has 4 axes \(2 x 8 x 8 x 8\), a volume has 3"),
        (np.zeros((8, 8)), "input_0: .*is 8 x 8, but a volume has 3 axes"),
        (np.zeros((8, 8, 8), complex), "input_0: a volume is .* real numbers, not complex128"),
        ({}, "input_0: a volume is a file, .* or an image of nibabel, not dict"),
        (np.full((8, 8, 8), np.nan), "512 voxels are not finite"),
    ],
)
def test_what_is_no_volume_is_told(path: Path, tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        densevit.load(tmp_path / "random.pth", path)(value)
