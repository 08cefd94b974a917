"""A small real dataset and config that every whole-run test shares."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

CLASSES = ("ground", "square", "disc")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # the models are small: more threads only wait for each other


def write_scene(root: Path, split: str, index: int) -> None:
    """Write one 64 x 80 picture with a square and a disc, and its mask with ids 0 to 2."""
    rng = np.random.default_rng(index)
    image = rng.integers(0, 60, (64, 80, 3), dtype=np.uint8)
    mask = np.zeros((64, 80), np.uint8)
    x, y = (int(v) for v in rng.integers(0, 30, 2))
    mask[y : y + 24, x : x + 24] = 1
    cv2.circle(mask, (60, 20 + int(rng.integers(0, 20))), 14, 2, -1)
    image[mask == 1] += 150
    image[mask == 2, 0] += 180
    for folder, array, suffix in (("images", image, "jpg"), ("annotations", mask, "png")):
        path = root / folder / split / f"{index:03d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), array)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Return the root of 12 pictures to train on and 5 to validate."""
    root = tmp_path / "scenes"
    for index in range(12):
        write_scene(root, "train", index)
    for index in range(12, 17):
        write_scene(root, "val", index)
    return root


def _loader(scenes: Path, split: str, transforms: list[dict[str, Any]], batch_size: int) -> dict[str, Any]:
    dataset = {
        "type": "SegDataset",
        "data_root": str(scenes),
        "image_dir": f"images/{split}",
        "mask_dir": f"annotations/{split}",
        "classes": CLASSES,
        "transforms": transforms,
    }
    return {"batch_size": batch_size, "num_workers": 0, "dataset": dataset}


@pytest.fixture
def config(scenes: Path, tmp_path: Path) -> Config:
    """Return a config that trains a very small SegFormer, with dropout and drop-path, for 8 steps."""
    augment = [
        {"type": "RandomRatioResize", "scale": (80, 64), "ratio": (0.75, 1.5)},
        {"type": "RandomCategoryCrop", "size": (64, 64)},
        {"type": "RandomHorizontalFlip", "p": 0.5},
        {"type": "PhotometricDistortion"},
    ]
    resize = [{"type": "AlignedResize", "scale": (80, 64), "divisor": 32}]
    model = {
        "type": "DenseModel",
        "backbone": {
            "type": "MiT",
            "dims": (8, 16, 16, 24),
            "depths": (1, 1, 1, 1),
            "num_heads": (1, 2, 2, 3),
            "drop_path": 0.3,
        },
        "head": {"type": "SegFormerHead", "num_classes": 3, "channels": 16, "dropout": 0.2},
        "precision": "fp32",
    }
    return Config(
        {
            "default_scope": "densevit",
            "model": model,
            "train_dataloader": _loader(scenes, "train", augment, 4),
            "val_dataloader": _loader(scenes, "val", resize, 2),
            "test_dataloader": _loader(scenes, "val", resize, 2),
            "train_cfg": {"by_epoch": False, "max_iters": 8, "val_interval": 4},
            "val_cfg": {},
            "test_cfg": {},
            "val_evaluator": {"type": "MeanIoU"},
            "test_evaluator": {"type": "MeanIoU"},
            "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "AdamW", "lr": 1e-3}},
            "param_scheduler": [{"type": "PolyLR", "power": 1.0, "by_epoch": False, "begin": 0, "end": 8}],
            "default_hooks": {"checkpoint": {"type": "CheckpointHook", "interval": 2, "save_best": "mIoU"}},
            "log_processor": {"by_epoch": False},
            "randomness": {"seed": 3},
            "work_dir": str(tmp_path / "run"),
        }
    )
