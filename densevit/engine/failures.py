"""What an error of a library means for a run, and the way out."""

import atexit
import errno
import logging
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch.distributed
from mmengine import dist
from torch.utils.data import DataLoader

from densevit.data.worker_notes import Note, WorkerNotes
from densevit.engine.manifest import newest
from densevit.errors import DataError, DensevitError, OutputError, ProcessError

WORKER_RAISED = re.compile(r"Caught \w+ in DataLoader worker process \d+\.\n")
WORKER_DIED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is )?([^.]*)")
WORKER_HUNG = re.compile(r"DataLoader timed out after (\d+) seconds")
CANNOT_WRITE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ESTALE,
}
CAUSES = {  # of the signal that killed a worker
    "Killed": "most likely memory ran out: lower num_workers, batch_size or prefetch_factor of {loader}",
    "Bus error": "shared memory ran out: raise it (docker run --shm-size), or lower num_workers of {loader}",
    "Segmentation fault": "what decodes it crashed: repair the file, or take it out of the dataset",
}
OTHER_CAUSE = "with {loader}.num_workers=0 its error is shown"


@contextmanager
def explained(runner: Any) -> Iterator[None]:
    """End the workers of a run that fails, and turn errors of libraries into ours where the user can mend them.

    Raises:
        DataError: A worker died or hung; its sample is named.
        ProcessError: The connection to another process broke.
        OutputError: A log cannot be written.
    """
    try:
        yield
    except BaseException as error:
        loaders = _loaders(runner)
        with _no_word_of_workers():
            explanation = explain(error, loaders, Path(runner.work_dir))
            end_workers(loaders.values())
        if explanation is None:
            raise
        saved = newest(Path(runner.work_dir))
        if saved and "train_dataloader" in loaders and not isinstance(error, DensevitError):
            explanation = type(explanation)(f"{explanation}. {saved} is saved, go on with --resume")
        raise explanation from error


def explain(error: BaseException, loaders: Mapping[str, DataLoader[Any]], work_dir: Path) -> DensevitError | None:
    """Return what to tell the user in place of an error; None where it is ours already, or a bug.

    Args:
        error: What was raised in the main thread.
        loaders: Of the run, by their names in the config.
        work_dir: Where the run writes.
    """
    text = str(error)
    if isinstance(error, DensevitError):
        return _without_traceback(error) if WORKER_RAISED.match(text) else None
    if isinstance(error, EOFError | ConnectionError | FileNotFoundError) and (dead := _wait_for_dead_worker(loaders)):
        return _of_dead_worker({dead.si_pid}, f"killed by signal: {signal.strsignal(dead.si_status)}", loaders)
    if isinstance(error, OSError) and error.errno in CANNOT_WRITE and _may_be_below(work_dir, error.filename):
        return OutputError(
            f"cannot write {error.filename or f'into {work_dir}'}: {error.strerror}. Make room or choose another "
            "--work-dir"
        )
    if not isinstance(error, RuntimeError):
        return None
    if died := WORKER_DIED.search(f"{error.__cause__} {text}"):  # the cause, if any, tells the signal
        return _of_dead_worker({int(pid) for pid in died[1].split(",")}, died[2], loaders)
    if hung := WORKER_HUNG.search(text):
        return _of_hung_worker(int(hung[1]), loaders)
    if dist.is_distributed() and (isinstance(error, torch.distributed.DistError) or "/gloo/" in text):
        reason = re.sub(r"^\[[^]]*\] *", "", text.splitlines()[0]).split(". ")[0]  # without gloo's line and advice
        return ProcessError(
            f"the connection to another process of the run broke ({reason}). Unless it is the network, that process "
            "has ended, and its own message says why"
        )
    return None


def end_workers(loaders: Iterable[DataLoader[Any]]) -> None:
    """Kill the workers of loaders: they heed no softer signal, and one that hangs would not let the process end."""
    pids = {note.pid for loader in loaders for note in _notes(loader)}
    workers = [child for child in multiprocessing.active_children() if child.pid in pids]
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join()


@atexit.register
def _end_workers_left() -> None:
    """Kill what else Python would terminate, and wait for: a worker of ours, which heeds only this, may hang."""
    with _no_word_of_workers():
        workers = [child for child in multiprocessing.active_children() if child.daemon]
        for worker in workers:
            worker.kill()
        for worker in workers:  # a busy machine takes a while, and torch's handler is to be back only then
            worker.join(10)


@contextmanager
def _no_word_of_workers() -> Iterator[None]:
    """Switch torch's handler off within the block, which raises when a worker ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)


def _wait_for_dead_worker(loaders: Mapping[str, DataLoader[Any]]) -> Any:
    """Return what `os.waitid` says of a worker that was killed; the connection to it breaks a moment before."""
    pids = [note.pid for loader in loaders.values() for note in _notes(loader) if note.pid]
    for _ in range(20):
        for pid in pids:
            with suppress(ChildProcessError):  # no longer, or not, a child
                state = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if state is not None and state.si_code != os.CLD_EXITED:
                    return state
        time.sleep(0.1)
    return None


def raise_on_full_disk(handler: logging.Handler) -> None:
    """Let a log that cannot be written end the run: logging would print a traceback at every line, and go on."""

    def end_or_print(record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], OSError):
            raise  # the error of `emit`, which calls this
        logging.Handler.handleError(handler, record)

    handler.handleError = end_or_print  # type: ignore[method-assign]


def _loaders(runner: Any) -> dict[str, DataLoader[Any]]:
    loops = {"train": runner._train_loop, "val": runner._val_loop, "test": runner._test_loop}
    return {f"{name}_dataloader": loop.dataloader for name, loop in loops.items() if hasattr(loop, "dataloader")}


def _notes(loader: DataLoader[Any]) -> list[Note]:
    notes: WorkerNotes | None = getattr(loader.dataset, "notes", None)
    return [] if notes is None else notes.read()


def _without_traceback(error: DensevitError) -> DensevitError:
    """Return the error as its worker raised it: torch hands it over with the traceback as the message."""
    kind = f"{type(error).__module__}.{type(error).__name__}: "
    return type(error)(str(error).rpartition(kind)[2].strip())


def _of_dead_worker(pids: set[int], how: str, loaders: Mapping[str, DataLoader[Any]]) -> DataError | None:
    for name, loader in loaders.items():
        for note in _notes(loader):
            if note.pid in pids:
                dataset: Any = loader.dataset
                place = "before its first sample" if note.sample < 0 else f"after {dataset.path(note.sample)}"
                if note.since:
                    place = f"while it read {dataset.path(note.sample)}"
                cause = next((text for kind, text in CAUSES.items() if kind in how), OTHER_CAUSE)
                return DataError(f"a worker of {name} ended {place} ({how}); {cause.format(loader=name)}")
    return None


def _of_hung_worker(seconds: int, loaders: Mapping[str, DataLoader[Any]]) -> DataError:
    """Name what has been read for longest: it is what the main process waits for, or takes as long."""
    busy = [(note.since, note.sample, name) for name in loaders for note in _notes(loaders[name]) if note.since]
    if not busy:
        return DataError(
            f"no batch came for {seconds} s, though no worker is reading: is the machine overloaded? "
            "The timeout of the dataloader may be raised"
        )
    since, index, name = min(busy)
    dataset: Any = loaders[name].dataset
    return DataError(
        f"no batch came for {seconds} s: a worker of {name} has been reading {dataset.path(index)} for "
        f"{time.monotonic() - since:.0f} s. Look at this file and at its disk, or raise {name}.timeout"
    )


def _may_be_below(folder: Path, name: str | None) -> bool:
    """Say whether a file may be one of a folder; the error of a write names none."""
    return name is None or Path(name).resolve().is_relative_to(folder.resolve())
