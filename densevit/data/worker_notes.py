"""What each worker of a loader is reading, so that the sample can be named at which one dies or hangs."""

import os
import time
from multiprocessing.sharedctypes import RawArray
from typing import NamedTuple

from torch.utils.data import get_worker_info


class Note(NamedTuple):
    """What a worker has noted: its process, its last sample, and since when it is at that."""

    pid: int
    sample: int  # its index; -1 before the first sample
    since: float  # of `time.monotonic`, which all processes of a machine share; 0 between two samples


class WorkerNotes:
    """One note per worker, in memory that the main process shares with all of them.

    Args:
        workers: How many there are.
    """

    def __init__(self, workers: int) -> None:
        self._pids = RawArray("q", workers)
        self._indices = RawArray("q", [-1] * workers)
        self._since = RawArray("d", workers)

    def enter(self) -> None:
        """Note the process; a worker calls this once."""
        if (worker := get_worker_info()) is not None:
            self._pids[worker.id] = os.getpid()

    def begin(self, index: int) -> None:
        """Note that the sample ``index`` is being read; in the main process nothing is noted."""
        if (worker := get_worker_info()) is not None:
            self._indices[worker.id], self._since[worker.id] = index, time.monotonic()

    def end(self) -> None:
        """Note that it has been read."""
        if (worker := get_worker_info()) is not None:
            self._since[worker.id] = 0

    def read(self) -> list[Note]:
        """Return the note of each worker."""
        return [Note(*values) for values in zip(self._pids, self._indices, self._since, strict=True)]
