"""A run with everything that is drawn per batch or kept over steps is resumed exactly."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import Tensor

from densevit.engine.runner import Runner
from densevit.weights import read_file

AUGMENT = [
    {"type": "RandomCrop", "size": 32, "padding": 4},
    {"type": "RandAugment", "num_ops": 1, "magnitude": 9, "num_magnitude_bins": 11},
    {"type": "NoiseErasing", "p": 0.5},
]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Return the root of ten images of each of three classes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 2)):
        for index, name in enumerate(("blue", "green", "red")):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 100, (32, 32, 3), dtype=np.uint8)
                image[..., index] += 120
                assert cv2.imwrite(str(tmp_path / "data" / split / name / f"{i}.png"), image)
    return tmp_path / "data"


@pytest.fixture
def recipe(config: Config, folders: Path) -> Config:
    """Return 8 steps of training with mixing, repeats, layer decay and averaged weights, in epochs of 4 steps."""

    def loader(split: str, transforms: list[dict[str, Any]], **options: int) -> dict[str, Any]:
        dataset = {
            "type": "ImageFolderDataset",
            "data_root": str(folders),
            "split": split,
            "transforms": transforms,
        }
        return {"num_workers": 0, "dataset": dataset, **options}

    config.model.backbone.token = True
    config.model.head = {"type": "ClassificationHead", "num_classes": 3, "dropout": 0.1, "label_smoothing": 0.1}
    config.model.data_preprocessor = {"mixup": 0.8, "cutmix": 1.0, "mix_prob": 0.7, "num_classes": 3}
    config.train_dataloader = loader("train", AUGMENT, batch_size=8, repeats=3)
    config.val_dataloader = config.test_dataloader = loader("test", [], batch_size=4)
    config.val_evaluator = config.test_evaluator = {"type": "Accuracy"}
    config.optim_wrapper.constructor = "LayerDecayConstructor"
    config.optim_wrapper.paramwise_cfg = {"layer_decay": 0.8}
    config.custom_hooks = [{"type": "EMAHook", "ema_type": "WarmupEMA", "momentum": 0.01}]
    config.default_hooks.checkpoint = {"type": "CheckpointHook", "interval": 3, "max_keep_ckpts": 9}
    return config


def train(cfg: Config, work_dir: Path, resume: bool = False) -> dict[str, dict[str, Tensor]]:
    """Return the averaged weights, under "state_dict", and those of the last step that a run ends with."""
    cfg = cfg.copy()
    cfg.work_dir, cfg.resume, cfg.experiment_name = str(work_dir), resume, f"{work_dir.name}_{resume}"
    Runner.from_cfg(cfg).train()
    saved = read_file(work_dir / "iter_8.pth")
    return {key: saved[key] for key in ("state_dict", "ema_state_dict")}


@pytest.mark.parametrize("by_epoch", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_mixing_repeats_and_averages_are_resumed_at_any_step(recipe: Config, tmp_path: Path, by_epoch: bool) -> None:
    if by_epoch:
        recipe.train_cfg = {"by_epoch": True, "max_epochs": 2, "val_interval": 1}
    straight = train(recipe, tmp_path / "straight")
    train(recipe, tmp_path / "other")
    for step in (6, 8):
        (tmp_path / "other" / f"iter_{step}.pth").unlink()
    recipe.train_dataloader.num_workers = 2
    resumed = train(recipe, tmp_path / "other", resume=True)
    for part, weights in straight.items():
        for key in weights:
            assert torch.equal(weights[key], resumed[part][key]), (part, key)
    averaged, last = straight["state_dict"]["head.fc.weight"], straight["ema_state_dict"]["module.head.fc.weight"]
    assert not torch.equal(averaged, last)
