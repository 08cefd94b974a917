"""What happens to the folder of a run, to its logs and to the clock costs no step."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from densevit.engine.curves import read_scalars
from densevit.engine.run_folder import name_of_logs
from densevit.engine.runner import Runner
from densevit.errors import ConfigError

HOLDER = """
import os, sys, time
from pathlib import Path
from densevit.engine.run_folder import locked
with locked(Path(sys.argv[1])):
    if os.fork() == 0:  # as a worker of a loader is
        os.close(1)
        time.sleep(60)
    print(os.getpid(), flush=True)
    time.sleep(60)
"""
Weights = dict[str, torch.Tensor]


def train(config: Config, work_dir: Path, resume: bool = False) -> Weights:
    config = config.copy()
    config.work_dir, config.resume, config.experiment_name = str(work_dir), resume, f"{work_dir.name}_{resume}"
    runner = Runner.from_cfg(config)
    runner.train()
    return runner.model.state_dict()


def forget(work_dir: Path) -> None:
    """Put a complete run back to step 6."""
    for name in ("iter_8.pth", "best_mIoU.pth"):
        (work_dir / name).unlink()


def same(one: Weights, other: Weights) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Start another process that trains in the folder "run", with a child."""
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{process.pid}\n"
        yield process
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.fault("two runs started at once in one work_dir", "the second is refused, the first goes on")
def test_a_second_run_at_once_is_refused_and_touches_nothing(
    config: Config, tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    being_written = tmp_path / "run" / "iter_2.pth.tmp"
    being_written.touch()
    for resume in (False, True):
        with pytest.raises(ConfigError, match=rf"another run trains in .*run: process {holder.pid} on .*--work-dir"):
            train(config, tmp_path / "run", resume)
    assert being_written.exists()


@pytest.mark.fault("run started right after another was killed, whose workers live on", "it trains")
def test_a_killed_run_leaves_no_lock(config: Config, tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    config.train_cfg.max_iters = 1
    train(config, tmp_path / "run")


@pytest.mark.fault("work_dir moved to another place", "resumed, the same bits at the end")
def test_a_run_goes_on_where_its_folder_was_moved_to(config: Config, tmp_path: Path) -> None:
    straight = train(config, tmp_path / "run")
    forget(tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "run").rename(tmp_path / "elsewhere" / "moved")
    assert same(straight, train(config, moved, resume=True))
    assert not (tmp_path / "run").exists()


@pytest.mark.fault("clock set back by a day between two starts", "resumed, the same bits; logs and curves in order")
def test_logs_stay_in_order_when_the_clock_is_set_back(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.default_hooks.logger = {"type": "LoggerHook", "interval": 1}
    straight = train(config, tmp_path / "run")
    (first,) = (tmp_path / "run").glob("*/*.log")
    before = first.read_text()
    forget(tmp_path / "run")
    now = time.time
    monkeypatch.setattr("time.time", lambda: now() - 86_400)
    assert same(straight, train(config, tmp_path / "run", resume=True))
    monkeypatch.undo()
    assert first.read_text() == before
    second = max((tmp_path / "run").glob("*/*.log"))
    assert second != first
    records = map(json.loads, (second.parent / "vis_data" / "scalars.json").read_text().splitlines())
    own = {record["step"]: record["time"] for record in records if "iter" in record}
    times = dict(read_scalars(tmp_path / "run")["train/time"])
    assert times.keys() == set(range(1, 9))
    assert own == {7: times[7], 8: times[8]}


@pytest.mark.fault("clock that runs backwards during the run", "the same bits at the end")
def test_a_clock_that_runs_backwards_changes_nothing(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = train(config, tmp_path / "straight")
    start = time.time()
    monkeypatch.setattr("time.time", lambda: 2 * start - time.monotonic() * 100)
    backwards = train(config, tmp_path / "run")
    monkeypatch.undo()
    assert same(straight, backwards)


def test_names_of_logs_sort_after_earlier_ones_and_are_used_once(tmp_path: Path) -> None:
    assert name_of_logs("20260101_000000", tmp_path / "none") == "20260101_000000"
    names = ["20250101_000000", "20260101_000000"]
    for _ in range(11):
        (tmp_path / names[-1]).mkdir()
        names.append(name_of_logs("20260101_000000", tmp_path))
    assert sorted(set(names)) == names
    (tmp_path / "predictions").mkdir()
    assert name_of_logs("20260102_000000", tmp_path) == "20260102_000000"
    assert name_of_logs("20260102_000000", tmp_path, {"20260102_000000"}) == "20260102_000000_002"


DAMAGES = {
    "truncated": lambda data: data[: len(data) - 9],
    "empty": lambda data: b"",
    "zeros at the end": lambda data: data[:-40] + bytes(40),
    "garbage in between": lambda data: data[:60] + bytes(range(256)) + b"\n7\n[1]\n" + data[60:],
}


@pytest.mark.fault("damaged log and scalars of the run before", "resumed; curves and results of what is left")
@pytest.mark.parametrize(
    "damage", [pytest.param(d, marks=[] if d == "garbage in between" else pytest.mark.slow) for d in DAMAGES]
)
def test_damaged_logs_keep_no_run_from_its_report(config: Config, tmp_path: Path, damage: str) -> None:
    config.default_hooks.logger = {"type": "LoggerHook", "interval": 1}
    config.custom_hooks = [{"type": "ReportHook", "num_samples": 1}]
    config.train_cfg.max_iters = 2
    train(config, tmp_path / "run")
    for file in [*(tmp_path / "run").glob("*/*.log"), *(tmp_path / "run").glob("*/vis_data/scalars.json")]:
        file.write_bytes(DAMAGES[damage](file.read_bytes()))
    for name in ("curves.png", "results.md"):
        (tmp_path / "run" / name).unlink()
    config.train_cfg.max_iters = 4
    train(config, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "curves.png").exists()
    assert (tmp_path / "run" / "results.md").exists()
    assert 4 in dict(read_scalars(tmp_path / "run")["train/loss"])
