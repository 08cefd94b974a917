"""A training in a process of its own, which kills itself at a chosen moment.

The moment is counted in calls of functions, Python's and C's, so that a seed finds it again on any machine.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.utils.cpp_extension
from mmengine.config import Config
from mmengine.hooks import Hook

from densevit.engine import atomic_write, checkpoint, manifest
from densevit.engine.loops import ValidationLoop
from densevit.engine.runner import Runner
from densevit.registry import BACKBONES, DATASETS, HEADS, MODELS, TRANSFORMS

for kind in (BACKBONES, DATASETS, HEADS, MODELS, TRANSFORMS):
    kind.names()  # imports all, once for the processes that are forked from here

WRITING = (atomic_write.write_beside, atomic_write.put_in_place, manifest.enter, checkpoint.remove)
PLACES: dict[str, tuple[Callable[..., Any], ...]] = {
    "anywhere": (Runner.train,),
    "writing": (checkpoint.save_checkpoint, *WRITING),
    "validating": (ValidationLoop.run,),
}


@dataclass
class Moment:
    """The ``call``-th call inside of one of the functions of ``place``, before it is made."""

    place: str
    call: int


class Countdown:
    """Counts calls as a profiler, and kills the process at a moment."""

    def __init__(self, moment: Moment) -> None:
        self.codes = {function.__code__ for function in PLACES[moment.place]}
        # What is between serialising and the manifest counts; serialising itself, by far the most calls, does not.
        self.excluded = {torch.save.__code__} if moment.place == "writing" else set()
        self.last, self.calls, self.depth, self.paused = moment.call, 0, 0, 0
        self.process = os.getpid()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event in ("call", "return"):
            step = 1 if event == "call" else -1
            self.depth += step * (frame.f_code in self.codes)
            self.paused += step * (frame.f_code in self.excluded)
        if self.depth > 0 and not self.paused and event in ("call", "c_call"):
            self.calls += 1
            if self.calls == self.last and os.getpid() == self.process:  # workers are forked with this in place
                os.kill(self.process, signal.SIGKILL)


class Diary(Hook):
    """Notes each beginning, and each step when all of it is done, in a file that survives the process."""

    priority = "LOWEST"

    def __init__(self, path: Path) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def before_train(self, runner: Any) -> None:
        os.write(self.file, f"begun {runner.iter}\n".encode())

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        os.write(self.file, f"done {runner.iter + 1}\n".encode())


def train(path: Path, work_dir: Path, moment: Moment, workers: int) -> None:
    """Train the config ``path``, from where ``work_dir`` has got to; note there how many calls that took."""
    output = os.open(work_dir.with_suffix(".out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)
    cfg = Config.fromfile(path)
    cfg.work_dir, cfg.resume, cfg.train_dataloader.num_workers = str(work_dir), True, workers
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Diary(work_dir.with_suffix(".diary")))
    countdown = Countdown(moment)
    sys.setprofile(countdown)
    runner.train()
    sys.setprofile(None)
    work_dir.with_suffix(".calls").write_text(str(countdown.calls))
    os._exit(0)  # a process of multiprocessing would wait for the workers, who heed no signal and end after it


def victim(path: Path, work_dir: Path, moment: Moment, workers: int = 0, seconds: float | None = None) -> bool:
    """Run `train` in a process; say whether it was killed, at its moment or after ``seconds``, or came to its end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once
    process = context.Process(target=train, args=(path, work_dir, moment, workers))
    process.start()
    process.join(100 if seconds is None else seconds)
    if late := process.is_alive():
        process.kill()
        process.join()
    assert not late or seconds is not None, f"hangs: {work_dir.with_suffix('.out').read_text()[-3000:]}"
    assert process.exitcode in (0, -signal.SIGKILL), work_dir.with_suffix(".out").read_text()[-3000:]
    return process.exitcode != 0
