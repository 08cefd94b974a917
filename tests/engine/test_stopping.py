"""A run that a signal stops is saved at that step, and resumed ends as if nothing had happened."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch.utils.data import get_worker_info

from densevit.engine.curves import read_scalars
from densevit.engine.manifest import read_manifest
from densevit.engine.runner import Runner
from densevit.engine.stopping import STOP_SIGNALS
from densevit.errors import StoppedError
from densevit.tasks.segmentation.dataset import SegDataset
from densevit.weights import read_file

TOOLS = Path(__file__).parents[2] / "tools"


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
    """Begin or resume a run that ``hook`` stops; return the message."""
    with pytest.raises(StoppedError) as stopped:
        train(cfg, work_dir, hook, resume=work_dir.exists())
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


@pytest.mark.parametrize("by_epoch", [False, True])
def test_a_run_that_signals_stop_ends_with_the_bits_of_an_uninterrupted_one(
    config: Config, tmp_path: Path, by_epoch: bool
) -> None:
    if by_epoch:  # of 3 steps
        config.train_cfg = {"by_epoch": True, "max_epochs": 3, "val_interval": 1}
        config.param_scheduler = [{"type": "MultiStepLR", "by_epoch": True, "milestones": [1, 2], "gamma": 0.5}]
    config.default_hooks.checkpoint = {"type": "CheckpointHook", "interval": 100, "max_keep_ckpts": 1}
    config.custom_hooks = [{"type": "EMAHook", "momentum": 0.1}]
    config.default_hooks.logger = {"type": "LoggerHook", "log_metric_by_epoch": False}
    handlers = [signal.getsignal(number) for number in STOP_SIGNALS]
    validated = 3 if by_epoch else 4
    for point, iteration, number, step in (
        ("before_train_iter", 2, signal.SIGTERM, 3),
        ("before_val_iter", validated, signal.SIGUSR1, validated),
        ("after_train_iter", 6, signal.SIGINT, 7),
    ):
        message = stop(config, tmp_path / "run", At(point, iteration, partial(terminate, number)))
        assert message.startswith(f"stopped by {number.name} at step {step}: ")
        assert f"iter_{step}.pth is saved, go on with --resume" in message
        assert read_manifest(tmp_path / "run").keys() == {f"iter_{step}.pth"}
        assert [signal.getsignal(number) for number in STOP_SIGNALS] == handlers
    last = train(config, tmp_path / "run", resume=True).iter
    train(config, tmp_path / "straight")
    assert_same(tmp_path / "run" / f"iter_{last}.pth", tmp_path / "straight" / f"iter_{last}.pth")
    validations = [[step for step, _ in read_scalars(tmp_path / run)["val/mIoU"]] for run in ("run", "straight")]
    assert validations[0] == validations[1]


def test_a_run_that_accumulates_gradients_stops_after_an_update(config: Config, tmp_path: Path) -> None:
    config.optim_wrapper.accumulative_counts = 3
    config.custom_hooks = [{"type": "EMAHook", "momentum": 0.1}]
    config.default_hooks.checkpoint = {"type": "CheckpointHook", "interval": 100}
    message = stop(config, tmp_path / "run", At("before_val_iter", 4, terminate))
    assert "stopped by SIGTERM at step 6" in message
    assert "the validation of step 4 is left out" in next((tmp_path / "run").glob("*/*.log")).read_text()
    train(config, tmp_path / "run", resume=True)
    train(config, tmp_path / "straight")
    assert_same(tmp_path / "run" / "iter_8.pth", tmp_path / "straight" / "iter_8.pth")


def test_a_run_that_waits_for_data_stops_at_once(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(self: SegDataset, index: int) -> Any:
        if get_worker_info() and (tmp_path / "hang").exists():
            time.sleep(100)
        return whole(self, index)

    def hang() -> None:
        (tmp_path / "hang").touch()
        threading.Timer(2, terminate).start()

    whole = SegDataset.read
    monkeypatch.setattr(SegDataset, "read", read)
    config.train_dataloader.num_workers = 1
    config.train_cfg.max_iters = 50
    start, others = time.monotonic(), set(multiprocessing.active_children())
    message = stop(config, tmp_path / "run", At("before_train_iter", 1, hang))
    assert "is saved, go on with --resume" in message
    assert time.monotonic() - start < 60
    assert set(multiprocessing.active_children()) <= others


def test_a_test_stops_before_the_next_batch(config: Config, tmp_path: Path) -> None:
    train(config, tmp_path / "run")
    config.load_from = str(tmp_path / "run" / "iter_8.pth")
    config.work_dir = str(tmp_path / "test")
    runner = Runner.from_cfg(config)
    runner.register_hook(hook := At("before_test_iter", 0, terminate))
    with pytest.raises(StoppedError, match="stopped by SIGTERM: start again"):
        runner.test()
    assert runner.test_loop.count == 2
    runner.hooks.remove(hook)
    assert 0 < runner.test()["mIoU"] <= 1
    assert runner.test_loop.count == 5
    runner.val()
    assert not list((tmp_path / "test").glob("*.pth"))


def _stop_one_of_two(path: Path, rank: int, world_size: int) -> tuple[str, str, int]:
    """Train and validate as one of several processes, the last of which alone is signalled; return what they say."""
    cfg = Config.fromfile(path)
    cfg.launcher = "pytorch"
    runner = Runner.from_cfg(cfg)
    runner.register_hook(At("before_train_iter", 1, terminate if rank == 1 else bool))
    with pytest.raises(StoppedError) as trained:
        runner.train()
    cfg.load_from, cfg.experiment_name = str(Path(cfg.work_dir) / "iter_2.pth"), "test"
    runner = Runner.from_cfg(cfg)
    runner.register_hook(At("before_test_iter", 0, terminate if rank == 1 else partial(time.sleep, 1.5)))
    with pytest.raises(StoppedError) as tested:
        runner.test()
    return str(trained.value), str(tested.value), runner.test_loop.count


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_the_same_step(
    config: Config, tmp_path: Path, in_processes: Callable[..., list[Any]]
) -> None:
    config.train_dataloader.batch_size = 2
    config.test_dataloader.batch_size = 1  # 3 and 2 batches
    config.dump(tmp_path / "tiny.py")
    first, second = in_processes(partial(_stop_one_of_two, tmp_path / "tiny.py"), 2)
    assert first[0] == second[0]
    assert first[0].startswith("stopped by SIGTERM at step 2: ")
    assert first[1] == second[1] == "stopped by SIGTERM: start again"
    assert first[2] < 3  # the other process was told, and did not evaluate to its end
    assert second[2] == 1


def start(path: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start a training in a process group of its own, as a terminal does."""
    command = [sys.executable, TOOLS / "train.py", path, *arguments]
    return subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for(*files: Path) -> None:
    for _ in range(1200):
        if all(file.exists() for file in files):
            return
        time.sleep(0.1)
    raise TimeoutError(files)


@pytest.mark.slow
def test_a_signal_to_a_group_stops_no_worker_and_a_second_one_ends_a_run_that_is_stuck(
    config: Config, tmp_path: Path
) -> None:
    (tmp_path / "stuck.py").write_text(STUCK)
    config.custom_imports = {"imports": ["stuck"]}
    config.custom_hooks = [{"type": "StuckHook"}]
    config.train_dataloader.num_workers = 2
    config.train_cfg.max_iters = 1000
    config.dump(tmp_path / "tiny.py")

    run = start(tmp_path / "tiny.py", "--work-dir", tmp_path / "run")
    wait_for(tmp_path / "run" / "iter_4.pth")
    os.killpg(run.pid, signal.SIGTERM)
    _, error = run.communicate(timeout=60)
    assert run.returncode == 75, error
    assert "SIGTERM: stopping after this step" in error
    assert "Traceback" not in error
    step = max(entry["iter"] for entry in read_manifest(tmp_path / "run").values())

    (tmp_path / "stick").touch()
    run = start(tmp_path / "tiny.py", "--work-dir", tmp_path / "run", "--resume")
    wait_for(tmp_path / "stuck")
    assert (tmp_path / "stuck").read_text() == str(step)
    os.killpg(run.pid, signal.SIGINT)
    time.sleep(1.5)
    assert run.poll() is None
    os.killpg(run.pid, signal.SIGINT)
    _, error = run.communicate(timeout=20)
    assert run.returncode == 130, error
    assert "Traceback" not in error


STUCK = """
import ctypes
from pathlib import Path
from mmengine.hooks import Hook
from densevit import HOOKS

@HOOKS.register_module()
class StuckHook(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        folder = Path(runner.work_dir).parent
        if (folder / "stick").exists():
            (folder / "stuck").write_text(str(runner.iter))
            for _ in range(20):
                ctypes.CDLL(None).sleep(100)  # in C, where Python handles no signal; a signal ends one of them
"""
