"""Data that vanish or spoil the weights during a run are named, and what was saved before is good."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from densevit.data.volume import read_volume
from densevit.engine.checkpoint import find_fault
from densevit.engine.manifest import read_manifest
from densevit.engine.runner import Runner
from densevit.errors import DataError, NonFiniteLossError
from densevit.weights import read_file


class At(Hook):
    """Do something before a step."""

    def __init__(self, step: int, action: Callable[[Any], object]) -> None:
        self.step, self.action = step, action

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter + 1 == self.step:
            self.action(runner)


def train(config: Config, work_dir: Path, resume: bool = False, *hooks: Hook) -> dict[str, torch.Tensor]:
    config = config.copy()
    config.work_dir, config.resume, config.experiment_name = str(work_dir), resume, f"{work_dir.name}_{resume}"
    runner = Runner.from_cfg(config)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner.model.state_dict()


@pytest.mark.fault("image deleted during the run", "recorded and replaced, the run goes on")
def test_an_image_that_vanishes_is_recorded_and_replaced(config: Config, scenes: Path, tmp_path: Path) -> None:
    image = scenes / "images/train/003.jpg"
    train(config, tmp_path / "run", False, At(3, lambda _: image.unlink()))
    assert f'"path": "{image}"' in (tmp_path / "run" / "bad_samples.jsonl").read_text()
    assert find_fault(tmp_path / "run" / "iter_8.pth") is None


@pytest.mark.fault("folder of the images deleted during the run, restored later", "stops, names it; the same bits")
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_folder_that_vanishes_stops_a_run_that_goes_on_when_it_is_back(
    config: Config, scenes: Path, tmp_path: Path, workers: int
) -> None:
    config.train_dataloader.num_workers = workers
    config.train_cfg.max_iters = 16 if workers else 8  # workers read ahead of the steps, two batches each
    straight = train(config, tmp_path / "straight")
    folder, away = scenes / "images/train", tmp_path / "away"
    vanish = At(3, lambda _: folder.rename(away))
    with pytest.raises(DataError) as stopped:
        train(config, tmp_path / "run", False, vanish)
    listed = tmp_path / "run" / "bad_samples.jsonl"
    assert f"{folder}" in str(stopped.value)
    assert f"listed in {listed}: repair the files" in str(stopped.value)
    assert "delete the list, and start again with --resume" in str(stopped.value)
    away.rename(folder)
    listed.unlink()
    resumed = train(config, tmp_path / "run", True)
    assert all(torch.equal(straight[key], value) for key, value in resumed.items())


def spoil(value: float) -> Callable[[Any], object]:
    """Give a parameter a gradient of ``value`` in the next step, as the sample of a finite loss may."""

    def action(runner: Any) -> None:
        weight = runner.model.head.linear_pred.weight
        handle = weight.register_hook(lambda gradient: (handle.remove(), torch.full_like(gradient, value))[1])

    return action


@pytest.mark.fault("batch of a finite loss that spoils the weights", "not saved; stops, names the files; the same bits")
@pytest.mark.parametrize(
    ("gradient", "named"),
    [(torch.inf, "head.linear_pred.weight"), pytest.param(1e30, "exp_avg_sq", marks=pytest.mark.slow)],
)
def test_weights_that_are_not_finite_are_not_saved(config: Config, tmp_path: Path, gradient: float, named: str) -> None:
    straight = train(config, tmp_path / "straight")
    message = rf"{named} is not finite after step 4.*scenes/images/train/\d+\.jpg.*learning rate.*--resume"
    with pytest.raises(NonFiniteLossError, match=message):
        train(config, tmp_path / "run", False, At(4, spoil(gradient)))
    assert read_manifest(tmp_path / "run").keys() == {"iter_2.pth"}
    saved = read_file(tmp_path / "run" / "iter_2.pth")["state_dict"]
    assert all(value.isfinite().all() for value in saved.values())
    assert all(torch.equal(straight[k], v) for k, v in train(config, tmp_path / "run", True).items())


@pytest.mark.fault(
    "volume with voxels that are not finite", "recorded with the file and the way out, as any bad sample"
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_volume_that_is_not_finite_is_named(tmp_path: Path, value: float) -> None:
    voxels = np.ones((5, 4, 3), np.float32)
    voxels[2, 1, 0] = value
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "scan.nii.gz")
    with pytest.raises(DataError, match=r"scan\.nii\.gz: 1 voxels are not finite.*numpy\.nan_to_num"):
        read_volume(tmp_path / "scan.nii.gz")
