"""What ends a run from outside of it is named with the way out: dead workers, other processes, full disks."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from torch.utils.data import get_worker_info

from densevit.engine.failures import explain
from densevit.engine.runner import Runner
from densevit.engine.stopping import STOP_SIGNALS
from densevit.errors import DataError, OutputError, ProcessError
from densevit.tasks.segmentation.dataset import SegDataset

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fails_at_005(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    def use(fail: Callable[[], None]) -> None:
        """Let readers of 005.jpg call ``fail``."""

        def read(self: SegDataset, index: int) -> Any:
            if self.path(index).endswith("train/005.jpg"):
                fail()
            return whole(self, index)

        whole = SegDataset.read
        monkeypatch.setattr(SegDataset, "read", read)

    return use


def out_of_memory() -> None:
    raise MemoryError


def killed() -> None:
    if get_worker_info():
        os.kill(os.getpid(), signal.SIGKILL)


def hung() -> None:
    if get_worker_info():
        time.sleep(1000)


def error_of(cfg: Config) -> str:
    cfg.check_data = "off"
    cfg.default_hooks.checkpoint.interval = 1
    with pytest.raises(DataError) as error:
        Runner.from_cfg(cfg).train()
    return str(error.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_for_which_memory_does_not_suffice_is_named(
    config: Config, tmp_path: Path, fails_at_005: Callable[..., None], workers: int
) -> None:
    fails_at_005(out_of_memory)
    config.train_dataloader.num_workers = workers
    message = error_of(config)
    assert message.startswith(f"{config.train_dataloader.dataset.data_root}/images/train/005.jpg: memory does not")
    assert "num_workers" in message
    assert "Traceback" not in message
    assert not (tmp_path / "run" / "bad_samples.jsonl").exists()


def test_a_worker_that_is_killed_is_named_with_its_sample(config: Config, fails_at_005: Callable[..., None]) -> None:
    fails_at_005(killed)
    config.train_dataloader.num_workers = 2
    start = time.monotonic()
    message = error_of(config)
    assert "a worker of train_dataloader ended while it read" in message
    assert "train/005.jpg (killed by signal: Killed); most likely memory ran out: lower num_workers" in message
    assert time.monotonic() - start < 60


def test_workers_leave_signals_to_the_main_process(config: Config, fails_at_005: Callable[..., None]) -> None:
    def signalled() -> None:
        for number in STOP_SIGNALS if get_worker_info() else ():
            os.kill(os.getpid(), number)

    fails_at_005(signalled)
    config.train_dataloader.num_workers = 1
    runner = Runner.from_cfg(config)
    runner.train()
    assert runner.iter == 8


def test_a_worker_that_hangs_is_named_with_its_sample(config: Config, fails_at_005: Callable[..., None]) -> None:
    fails_at_005(hung)
    config.train_dataloader.update(num_workers=2, timeout=3)
    start = time.monotonic()
    message = error_of(config)
    assert "no batch came for 3 s: a worker of train_dataloader has been reading" in message
    assert "train/005.jpg for " in message
    assert "or raise train_dataloader.timeout" in message
    assert time.monotonic() - start < 60


def test_a_run_goes_on_from_what_was_saved_before_a_worker_died(
    config: Config, tmp_path: Path, fails_at_005: Callable[..., None]
) -> None:
    fails_at_005(lambda: killed() if (tmp_path / "run" / "iter_3.pth").exists() else None)
    config.train_dataloader.num_workers = 1
    config.train_cfg.max_iters = 20
    message = error_of(config)
    assert ".pth is saved, go on with --resume" in message


class FullDisk(Hook):
    """Lets each write to the file of a name fail, after the first step."""

    def __init__(self, name: str) -> None:
        self.name = name

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        (file,) = Path(runner.work_dir).glob(f"*/**/{self.name}")
        file.unlink()
        file.symlink_to(Path("/", "dev", "full"))
        for handler in runner.logger.handlers:
            if getattr(handler, "baseFilename", "").endswith(file.name):
                handler.stream = file.open("w")


@pytest.mark.parametrize("name", ["*.log", "scalars.json"])
def test_a_disk_that_is_full_when_logs_are_written_ends_the_run_with_the_way_out(
    config: Config, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    config.default_hooks.logger = {"type": "LoggerHook", "interval": 1, "log_metric_by_epoch": False}
    config.default_hooks.checkpoint.interval = 1
    runner = Runner.from_cfg(config)
    runner.register_hook(FullDisk(name), priority="LOWEST")
    with pytest.raises(OutputError, match=r"cannot write.*No space left.*iter_1\.pth is saved, go on with --resume"):
        runner.train()
    assert "Logging error" not in capfd.readouterr().err


def test_a_connection_that_broke_points_to_the_other_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("[/build/gloo/gloo/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:7. Look")
    assert explain(error, {}, tmp_path) is None
    monkeypatch.setattr("mmengine.dist.is_distributed", lambda: True)
    explanation = explain(error, {}, tmp_path)
    assert isinstance(explanation, ProcessError)
    assert "broke (Connection closed by peer [10.0.0.2]:7). Unless" in str(explanation)


RANK_FAILS = """
import os, signal
from mmengine.hooks import Hook
from densevit import HOOKS
from densevit.errors import DataError

@HOOKS.register_module()
class RankFails(Hook):
    def __init__(self, how):
        self.how = how

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.rank == 1 and runner.iter == 3:
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise DataError("broken.jpg: of process 1")
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["raises", "killed"])
def test_one_process_that_fails_ends_the_others_and_its_message_is_seen(
    config: Config, tmp_path: Path, how: str
) -> None:
    (tmp_path / "rank_fails.py").write_text(RANK_FAILS)
    config.custom_imports = {"imports": ["rank_fails"]}
    config.custom_hooks = [{"type": "RankFails", "how": how}]
    config.train_dataloader.num_workers = 1
    config.dump(tmp_path / "tiny.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(ROOT / "tools" / "train.py"), str(tmp_path / "tiny.py")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        failed = 0.0
        error = ""
        assert run.stderr
        for line in run.stderr:
            failed = failed or time.monotonic()
            error += line
    assert run.returncode != 0
    assert time.monotonic() - failed < 60
    # torchrun may end process 0 before it has said so
    assert "error of process 0: the connection to another process of the run broke" in error or "Signal 15" in error
    assert "RuntimeError" not in error
    if how == "raises":
        assert "error of process 1: broken.jpg: of process 1" in error


HANGS_LAST = """
import time
from pathlib import Path
from mmengine.hooks import Hook
from densevit import HOOKS
from densevit.tasks.segmentation.dataset import SegDataset

folder = Path(__file__).parent
whole = SegDataset.read

def read(self, index):
    if (folder / "hang").exists() and "train" in self.path(index):
        (folder / "hangs").touch()
        time.sleep(1000)
    return whole(self, index)

@HOOKS.register_module()
class HangHook(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 2:
            (folder / "hang").touch()

SegDataset.read = read
"""


@pytest.mark.slow
def test_a_worker_that_hangs_does_not_keep_a_finished_run_from_ending(config: Config, tmp_path: Path) -> None:
    (tmp_path / "hangs_last.py").write_text(HANGS_LAST)
    config.custom_imports = {"imports": ["hangs_last"]}
    config.custom_hooks = [{"type": "HangHook"}]
    config.train_dataloader.num_workers = 1
    config.train_cfg.max_iters = 3
    config.val_evaluator = config.val_cfg = config.val_dataloader = None
    config.default_hooks.checkpoint = {"type": "CheckpointHook", "interval": 3}
    config.dump(tmp_path / "tiny.py")
    command = [sys.executable, ROOT / "tools" / "train.py", tmp_path / "tiny.py", "--work-dir", tmp_path / "run"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "hangs").exists()
    assert (tmp_path / "run" / "iter_3.pth").exists()


DIES_LATE = """
import multiprocessing
import signal
import subprocess

from torch.utils.data import DataLoader

import densevit.engine.failures

delays = [0.8, 0.3]  # the second ends while the first is waited for

def kill(process):
    subprocess.Popen(["sh", "-c", f"sleep {delays.pop(0)}; kill -9 {process.pid}"])

def heed_only_kill(worker):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

multiprocessing.process.BaseProcess.kill = kill
loader = DataLoader(range(99), num_workers=2, persistent_workers=True, worker_init_fn=heed_only_kill)
next(iter(loader))
"""


def test_workers_that_a_busy_machine_ends_late_leave_no_word_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(DIES_LATE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, tmp_path / "late.py"], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
