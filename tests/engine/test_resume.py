"""A run that is killed and resumed ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from densevit.engine.checkpoint import load_model
from densevit.engine.manifest import read_manifest
from densevit.engine.runner import Runner
from densevit.errors import CheckpointError, ConfigError
from densevit.weights import read_file

KILLER = """
import os, signal, sys
from mmengine.config import Config
from densevit.engine.runner import Runner
from densevit.registry import HOOKS
from mmengine.hooks import Hook

@HOOKS.register_module()
class KillHook(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

cfg = Config.fromfile(sys.argv[1])
cfg.custom_hooks = [dict(type="KillHook")]
Runner.from_cfg(cfg).train()
"""


def train(cfg: Config, work_dir: Path, resume: bool = False, *hooks: Hook) -> dict[str, torch.Tensor]:
    cfg = cfg.copy()
    cfg.work_dir, cfg.resume, cfg.experiment_name = str(work_dir), resume, f"{work_dir.name}_{resume}"
    runner = Runner.from_cfg(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner.model.state_dict()


def kill_at(cfg: Config, work_dir: Path, step: int) -> None:
    """Train in a process of its own that kills itself with SIGKILL before ``step``."""
    cfg = cfg.copy()
    cfg.work_dir = str(work_dir)
    path = work_dir.parent / "killed.py"
    cfg.dump(path)
    command = [sys.executable, "-c", KILLER, str(path), str(step)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # as here: sums depend on the number of threads
    done = subprocess.run(command, capture_output=True, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("by_epoch", [False, True])
def test_a_killed_run_ends_with_the_bits_of_an_uninterrupted_one(
    config: Config, tmp_path: Path, workers: int, by_epoch: bool
) -> None:
    config.train_dataloader.num_workers = workers
    if by_epoch:  # 3 epochs of 3 steps; checkpoints lie inside epochs
        config.train_cfg = {"by_epoch": True, "max_epochs": 3, "val_interval": 1}
    straight = train(config, tmp_path / "straight")
    kill_at(config, tmp_path / "killed", step=5)
    assert (tmp_path / "killed" / "iter_4.pth").exists()
    assert_same(straight, train(config, tmp_path / "killed", resume=True))
    logs = "".join(p.read_text() for p in (tmp_path / "killed").glob("*/*.log"))
    assert "has changed: the new one applies" not in logs


def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(config: Config, tmp_path: Path) -> None:
    straight = train(config, tmp_path / "straight")
    config.default_hooks.checkpoint.max_keep_ckpts = 9
    train(config, tmp_path / "other")
    for name in ("iter_8.pth", "iter_6.pth", "best_mIoU.pth"):
        (tmp_path / "other" / name).unlink()
    assert_same(straight, train(config, tmp_path / "other", resume=True))


def test_averaged_weights_are_resumed_exactly(config: Config, tmp_path: Path) -> None:
    config.custom_hooks = [{"type": "EMAHook", "momentum": 0.1}]
    config.default_hooks.checkpoint = {"type": "CheckpointHook", "interval": 2, "max_keep_ckpts": 9}
    train(config, tmp_path / "straight")
    train(config, tmp_path / "other")
    for name in ("iter_8.pth", "iter_6.pth"):
        (tmp_path / "other" / name).unlink()
    train(config, tmp_path / "other", resume=True)
    straight, resumed = (read_file(tmp_path / run / "iter_8.pth") for run in ("straight", "other"))
    assert_same(straight["state_dict"], resumed["state_dict"])
    assert_same(straight["ema_state_dict"], resumed["ema_state_dict"])
    assert not torch.equal(
        straight["state_dict"]["head.linear_pred.weight"], straight["ema_state_dict"]["module.head.linear_pred.weight"]
    )


def test_the_order_of_samples_does_not_depend_on_workers(config: Config, tmp_path: Path) -> None:
    alone = train(config, tmp_path / "alone")
    config.train_dataloader.num_workers = 2
    assert_same(alone, train(config, tmp_path / "two"))


def test_resuming_skips_a_corrupt_checkpoint_and_names_it(config: Config, tmp_path: Path) -> None:
    straight = train(config, tmp_path / "run")
    newest = tmp_path / "run" / "iter_8.pth"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    (tmp_path / "run" / "best_mIoU.pth").unlink()
    with pytest.raises(CheckpointError, match=r"iter_8\.pth is corrupt.*iter_6\.pth is intact"):
        load_model(torch.nn.Module(), newest)
    assert_same(straight, train(config, tmp_path / "run", resume=True))
    logs = "".join(p.read_text() for p in (tmp_path / "run").glob("*/*.log"))
    assert "iter_8.pth is corrupt" in logs
    assert "resumed" in logs
    assert "iter_6.pth at step 6" in logs


class Recorder(Hook):
    def __init__(self, rates: list[float]) -> None:
        self.rates = rates

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        self.rates.append(runner.optim_wrapper.param_groups[0]["lr"])


def test_a_changed_schedule_applies_after_a_resume(config: Config, tmp_path: Path) -> None:
    train(config, tmp_path / "run")
    config.train_cfg = {"by_epoch": False, "max_iters": 12, "val_interval": 100}
    config.param_scheduler[0].end = 12
    straight: list[float] = []
    resumed: list[float] = []
    train(config, tmp_path / "straight", False, Recorder(straight))
    train(config, tmp_path / "run", True, Recorder(resumed))
    assert resumed == straight[8:]


def test_a_second_run_in_the_same_folder_is_refused(config: Config, tmp_path: Path) -> None:
    train(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="--resume"):
        train(config, tmp_path / "run")


def test_only_the_newest_and_the_best_checkpoints_are_kept(config: Config, tmp_path: Path) -> None:
    train(config, tmp_path / "run")
    kept = {"iter_6.pth", "iter_8.pth", "best_mIoU.pth"}
    assert {p.name for p in (tmp_path / "run").glob("*.pth")} == kept
    assert read_manifest(tmp_path / "run").keys() == kept
