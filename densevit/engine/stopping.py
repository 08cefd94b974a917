"""A run that is told to stop does so between two steps, in all of its processes, and is saved.

Python would raise KeyboardInterrupt amid a step, or die, and lose what came after the last checkpoint.
"""

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from mmengine import dist
from torch.distributed.distributed_c10d import _get_default_store

from densevit.engine.manifest import newest
from densevit.errors import StoppedError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
GRACE = 1.0  # seconds in which a signal is the first one again: a terminal and a launcher may both pass it on
LOOK = 1.0  # seconds between two looks at whether another process is to stop, in an evaluation
SHOW_CURSOR = b"\x1b[?25h"

_runs = count()


class _LeaveWait(BaseException):
    """Leaves a wait for data; no reader takes it for an error of its file."""


class Stops:
    """Whether the run is to stop, as a context in which SIGTERM, SIGINT and SIGUSR1 say so.

    The first signal stops the run between two steps, or two batches of an evaluation; a wait for data is left at once.
    A second one ends the process with 128 + its number. All processes stop at the same step, whichever of them was
    told to: see `next` and `batches`. The death of a worker is raised in a wait for data too: torch would raise it amid
    anything, a save for instance, where anything may catch it. Outside of a main thread, where Python handles no
    signals, this one listens to none.

    Attributes:
        asked: Number of the signal that came; 0 as long as none has.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._waiting = False
        self._looked = 0.0
        self._key = ""
        self._previous: dict[int, Any] = {}  # handlers of signals, within the context

    def __enter__(self) -> "Stops":
        self.asked = 0
        self._key = f"densevit/stop/{next(_runs)}"  # all processes begin their runs in the same order
        if threading.current_thread() is threading.main_thread():
            self._process = os.getpid()
            self._previous = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
            reader, self._writer = socket.socketpair()
            self._writer.setblocking(False)
            self._previous_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=_end_at_second, args=(reader,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._previous:
            signal.set_wakeup_fd(self._previous_fd)
            self._writer.send(b"\0")  # ends the thread; to close would not, while workers have copies of the socket
            self._writer.close()
            for number, handler in self._previous.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            self._previous = {}

    def next(self, batches: Iterator[Any]) -> Any:
        """Return the next batch of training; all processes call this together.

        Raises:
            StoppedError: In all of them, if one is to stop.
        """
        batch = self._wait(next, batches)
        self._stop_if_asked()
        return batch

    def batches(self, loader: Any) -> Iterator[Any]:
        """Yield the batches of an evaluation, of which processes have different numbers.

        One that is to stop tells the others by the store of the process group, and all meet at the end.

        Raises:
            StoppedError: In all of them, if one is to stop.
        """
        iterator = self._wait(iter, loader)
        while not self.asked and not self._other_asked():
            try:
                batch = self._wait(next, iterator)
            except StopIteration:
                break
            if not self.asked:
                yield batch
        if self.asked and dist.is_distributed():
            _get_default_store().set(self._key, "asked")
        self._stop_if_asked()

    def _wait(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Call what waits for data; None if a signal came before or meanwhile."""
        try:
            self._waiting = True
            try:
                if self.asked:
                    return None
                self._raise_for_workers()
                return function(argument)
            finally:
                self._waiting = False
        except _LeaveWait:
            return None

    def _stop_if_asked(self) -> None:
        asked = torch.tensor(self.asked)
        dist.all_reduce(asked, "max")
        self.asked = int(asked)
        if self.asked:
            raise StoppedError(f"stopped by {signal.Signals(self.asked).name}")

    def _other_asked(self) -> bool:
        if not dist.is_distributed() or time.monotonic() - self._looked < LOOK:
            return False
        self._looked = time.monotonic()
        return bool(_get_default_store().check([self._key]))

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked or os.getpid() != self._process:  # a worker has this handler too, until it has started
            return
        self.asked = number
        if self._waiting:
            self._waiting = False
            raise _LeaveWait

    def _raise_for_workers(self) -> None:
        """Raise for a worker that died before the wait; put a handler before torch's to raise for others during it."""
        handler: Any = signal.getsignal(signal.SIGCHLD)
        if self._previous and handler != self._note_worker and callable(handler):  # torch's, since workers began
            self._previous[signal.SIGCHLD] = handler
            signal.signal(signal.SIGCHLD, self._note_worker)
        if signal.SIGCHLD in self._previous:
            self._previous[signal.SIGCHLD](signal.SIGCHLD, None)

    def _note_worker(self, number: int, frame: FrameType | None) -> None:
        if self._waiting:
            self._previous[number](number, frame)


@contextmanager
def stoppable(runner: Any, training: bool) -> Iterator[None]:
    """Heed signals within the block; when one stops the run, save it if ``training``, and say how to go on.

    Hooks may have a method ``before_stop(runner)``; that of `CheckpointHook` saves.

    Raises:
        StoppedError: The run was stopped, in all processes at once, and is saved.
    """
    with runner.stops:
        try:
            yield
        except StoppedError as stop:
            message = f"{stop}: start again"
            if training:
                runner.call_hook("before_stop")
                saved = newest(Path(runner.work_dir))
                message = f"{stop} at step {runner.iter}: " + (
                    f"{saved} is saved, go on with --resume" if saved else "nothing is saved, start again"
                )
            runner.logger.warning(message)
            dist.barrier()  # a launcher ends the others as soon as one has ended: not before all is written
            raise StoppedError(message) from None


def _end_at_second(signals: socket.socket) -> None:
    """Read the numbers of signals as they come, whatever the main thread is busy with; the second one ends all."""
    first = None
    while (number := signals.recv(1)[0]) != 0:
        if number not in STOP_SIGNALS:
            continue
        if first is None:
            first = time.monotonic()
            if os.environ.get("RANK", "0") == "0":
                text = f"\n{signal.Signals(number).name}: stopping after this step; a second one quits at once\n"
                os.write(2, (text + "\n\n" * sys.stderr.isatty()).encode())  # the display clears its last lines
        elif time.monotonic() - first > GRACE:
            for worker in multiprocessing.active_children():
                worker.kill()
            if sys.stdout.isatty():
                os.write(1, SHOW_CURSOR)  # which the display of the progress hides
            os._exit(128 + number)
    signals.close()
