"""Runs that accumulate gradients are resumed exactly: nothing is saved between two updates but the best weights."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from densevit.engine.manifest import read_manifest
from densevit.engine.runner import Runner
from densevit.errors import CheckpointError
from densevit.weights import read_file


@pytest.fixture
def accumulating(config: Config) -> Config:
    """Return 8 steps with an update after every third and the last; averaged weights; a validation after step 4."""
    config.optim_wrapper.accumulative_counts = 3
    config.custom_hooks = [{"type": "EMAHook", "ema_type": "WarmupEMA", "momentum": 0.01}]
    config.default_hooks.checkpoint.max_keep_ckpts = 9
    return config


def train(config: Config, work_dir: Path, resume: bool = False, *hooks: Hook) -> dict[str, torch.Tensor]:
    """Return all weights that a run ends with, averaged and not."""
    cfg = config.copy()
    cfg.work_dir, cfg.resume, cfg.experiment_name = str(work_dir), resume, f"{work_dir.name}_{resume}"
    runner = Runner.from_cfg(cfg)
    for hook in hooks:
        runner.register_hook(hook, "LOWEST")
    runner.train()
    saved = read_file(work_dir / [name for name in read_manifest(work_dir) if not name.startswith("best")][-1])
    return {f"{part}.{k}": v for part in ("state_dict", "ema_state_dict") for k, v in saved[part].items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


def remove(work_dir: Path, *names: str) -> None:
    for name in names:
        (work_dir / name).unlink()


def test_checkpoints_wait_for_the_update_and_resume_exactly(accumulating: Config, tmp_path: Path) -> None:
    straight = train(accumulating, tmp_path / "run")
    periodic = {path.name for path in (tmp_path / "run").glob("iter_*.pth")}
    assert periodic == {"iter_3.pth", "iter_6.pth", "iter_8.pth"}  # due after 2, 4 and 6, 8
    remove(tmp_path / "run", "iter_6.pth", "iter_8.pth")
    accumulating.train_dataloader.num_workers = 2
    assert_same(straight, train(accumulating, tmp_path / "run", True))


class KeepBest(Hook):
    """Keeps what was written after the first validation."""

    path: Path | None = None

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if self.path is None:
            self.path = Path(runner.work_dir) / "best_mIoU.pth"
            self.path = self.path.rename(self.path.with_name("first.pth"))


def test_the_best_weights_between_updates_can_be_tested_but_not_resumed(accumulating: Config, tmp_path: Path) -> None:
    first = KeepBest()
    train(accumulating, tmp_path / "run", False, first)
    assert read_file(first.path)["meta"]["iter"] == 4
    accumulating.load_from = str(first.path)
    with pytest.raises(CheckpointError, match=r"first\.pth cannot be resumed: it holds no optimizer"):
        train(accumulating, tmp_path / "other", True)
    accumulating.work_dir = str(tmp_path / "test")
    assert "mIoU" in Runner.from_cfg(accumulating).test()


@pytest.mark.slow
def test_checkpoints_of_epochs_wait_too(accumulating: Config, tmp_path: Path) -> None:
    accumulating.train_cfg = {"by_epoch": True, "max_epochs": 3, "val_interval": 1}  # of 3 steps
    accumulating.optim_wrapper.accumulative_counts = 2
    accumulating.default_hooks.checkpoint.update(by_epoch=True, interval=1)
    straight = train(accumulating, tmp_path / "run")
    steps = {name: e["iter"] for name, e in read_manifest(tmp_path / "run").items() if name != "best_mIoU.pth"}
    assert steps == {"epoch_1.pth": 4, "epoch_2.pth": 6, "epoch_3.pth": 9}
    remove(tmp_path / "run", "epoch_2.pth", "epoch_3.pth")
    assert_same(straight, train(accumulating, tmp_path / "run", True))
