"""A run that a signal stops is saved at that step, and resumed ends as if nothing had happened."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from densevit.engine.checkpoint import read_manifest
from densevit.engine.runner import Runner
from densevit.engine.stopping import STOP_SIGNALS
from densevit.errors import StoppedError
from densevit.weights import read_file


class At(Hook):
    """Calls a function at a point of a run."""

    def __init__(self, point: str, step: int, act: Callable[[], None]) -> None:
        setattr(self, point, lambda runner, **_: act() if runner.iter == step else None)


def terminate(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def train(cfg: Config, work_dir: Path, *hooks: Hook, resume: bool = False) -> Runner:
    cfg = cfg.copy()
    cfg.work_dir, cfg.resume, cfg.experiment_name = str(work_dir), resume, f"{work_dir.name}_{time.monotonic_ns()}"
    runner = Runner.from_cfg(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner


def stop(cfg: Config, work_dir: Path, hook: Hook) -> str:
    """Train until ``hook`` stops the run; return the message."""
    with pytest.raises(StoppedError) as stopped:
        train(cfg, work_dir, hook)
    return str(stopped.value)


def assert_same(one: Path, other: Path) -> None:
    """Compare all tensors and schedules of two checkpoints."""
    first, second = read_file(one), read_file(other)
    assert first["param_schedulers"] == second["param_schedulers"]
    for key in first.keys() & {"state_dict", "ema_state_dict"}:
        assert all(torch.equal(first[key][name], value) for name, value in second[key].items())
    states = first["optimizer"]["state"], second["optimizer"]["state"]
    assert states[0].keys() == states[1].keys()
    for number, state in states[0].items():
        assert all(torch.equal(value, states[1][number][name]) for name, value in state.items())


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_a_signal_stops_a_run_after_the_step_and_it_goes_on_exactly(
    config: Config, tmp_path: Path, number: signal.Signals
) -> None:
    config.default_hooks.checkpoint = {"type": "CheckpointHook", "interval": 4, "max_keep_ckpts": 1}
    config.custom_hooks = [{"type": "EMAHook", "momentum": 0.1}]
    handlers = [signal.getsignal(each) for each in STOP_SIGNALS]
    message = stop(config, tmp_path / "run", At("before_train_iter", 4, lambda: terminate(number)))
    assert message.startswith(f"stopped by {number.name} at step 5")
    assert "iter_5.pth is saved, go on with --resume" in message
    assert read_manifest(tmp_path / "run").keys() == {"iter_5.pth"}
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == handlers
    train(config, tmp_path / "run", resume=True)
    train(config, tmp_path / "straight")
    assert_same(tmp_path / "run" / "iter_8.pth", tmp_path / "straight" / "iter_8.pth")
