"""Every sample of a dataset is read once, by processes that may be lost: a file that kills its reader is named, too."""

import math
import multiprocessing
import os
import signal
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from densevit.data.dataset import DenseDataset, private_rng
from densevit.errors import DataError
from densevit.seeding import mix_seed
from densevit.structures import space_of

LABELS = ("mask", "labels", "label")  # fields of targets that hold indices of classes
PART = 2**22  # labels that are counted at once: NumPy makes 8 bytes of each
ALIVE = 5.0  # seconds after which a reader without work looks whether it is still wanted


@dataclass(frozen=True)
class Found:
    """What reading a sample gave.

    Attributes:
        index: Of the sample.
        error: Why it cannot be read; None if it can.
        size: ``(H, W)``, ``(T, H, W)`` or ``(D, H, W)`` of the input as the dataset reads it.
        labels: How many pixels, voxels or objects have which class, or 1 for that of the whole sample.
    """

    index: int
    error: str | None = None
    size: tuple[int, ...] = ()
    labels: dict[int, int] = field(default_factory=dict)


class Tally:
    """What was found of a dataset, in little memory.

    Args:
        dataset: Its samples are counted.

    Attributes:
        bad: The samples that cannot be read, in the order in which they were found.
    """

    def __init__(self, dataset: DenseDataset) -> None:
        self.total, self.classes = len(dataset), dataset.classes
        self.bad: list[Found] = []
        self._sizes: Counter[tuple[int, ...]] = Counter()
        self._samples: Counter[int] = Counter()
        self._labels: Counter[int] = Counter()

    def add(self, found: Found) -> None:
        """Count a sample."""
        if found.error is not None:
            self.bad.append(found)
            return
        self._sizes[found.size] += 1
        self._samples.update(found.labels.keys())
        self._labels.update(found.labels)

    def summary(self) -> dict[str, Any]:
        """Return, in values of JSON, how many samples are good, bad and unread, their sizes, and classes by name.

        Of a class it is told how many samples have it, and its share of all labels.
        """
        good, labels = self._sizes.total(), self._labels.total()
        counts = {
            name: {"samples": self._samples[i], "share": self._labels[i] / labels}
            for i, name in enumerate(self.classes)
            if labels
        }
        return {
            "samples": self.total,
            "good": good,
            "bad": len(self.bad),
            "unread": self.total - good - len(self.bad),
            "sizes": self._quantiles() if good else {},
            "classes": counts,
        }

    def _quantiles(self) -> dict[str, tuple[int, ...]]:
        """Return the smallest, the median and the largest size, by the number of pixels or voxels."""
        sizes = sorted(self._sizes, key=math.prod)
        ends = list(accumulate(self._sizes[size] for size in sizes))
        return {"smallest": sizes[0], "median": sizes[bisect_right(ends, ends[-1] // 2)], "largest": sizes[-1]}


def scan(dataset: DenseDataset, workers: int, timeout: float) -> Iterator[Found]:
    """Read every sample, in several processes, and yield what was found in the order in which they end.

    Args:
        dataset: What it reads is not transformed.
        workers: Number of processes.
        timeout: Seconds after which a sample counts as one that cannot be read.
    """
    indices = iter(range(len(dataset)))
    readers = [_Reader(dataset) for _ in range(min(workers, len(dataset)))]
    try:
        busy = {reader for reader in readers if reader.begin(next(indices, None))}
        while busy:
            wait([reader.pipe for reader in busy], timeout=min(timeout / 10, 1.0))
            for reader in list(busy):
                if (found := reader.end(timeout)) is None:
                    continue
                yield found
                if not reader.begin(next(indices, None)):
                    busy.remove(reader)
    finally:
        for reader in readers:
            reader.stop()


class _Reader:
    """A process that reads one sample after the other, and another one in its place if it is lost."""

    pipe: Connection
    process: BaseProcess

    def __init__(self, dataset: DenseDataset) -> None:
        self.dataset = dataset
        self.index, self.since = 0, 0.0
        self._start()

    def _start(self) -> None:
        self.pipe, other = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=_read_all, args=(self.dataset, other), daemon=True)
        self.process.start()
        other.close()

    def begin(self, index: int | None) -> bool:
        """Have a sample read; say whether there is one."""
        if index is None:
            return False
        self.index, self.since = index, time.monotonic()
        with suppress(BrokenPipeError):  # the process is gone, as `end` will tell
            self.pipe.send(index)
        return True

    def end(self, timeout: float) -> Found | None:
        """Return what was found; None as long as it is being read."""
        try:
            if self.pipe.poll():
                return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return self._lost(f"reading it ended the process ({_describe(self.process.exitcode or 0)})")
        if time.monotonic() - self.since > timeout:
            return self._lost(f"reading it took more than {timeout:g} s")
        return None

    def _lost(self, reason: str) -> Found:
        self.stop()
        self._start()
        return Found(self.index, f"{', '.join(self.dataset.files_of(self.index))}: {reason}; replace or remove it")

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _read_all(dataset: DenseDataset, pipe: Connection) -> None:
    """Read what is asked for, until the parent has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what decoders print of damage does not say of which file
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive():
        if pipe.poll(ALIVE):
            pipe.send(_read(dataset, pipe.recv()))


def _read(dataset: DenseDataset, index: int) -> Found:
    try:
        with private_rng(mix_seed(0, index)):  # which frames of a video, say
            image, target, _ = dataset.read_checked(index)
    except DataError as error:
        return Found(index, str(error))
    except Exception as error:  # one that a reader does not know of is still of this file
        return Found(index, f"{', '.join(dataset.files_of(index))}: {type(error).__name__}: {error}")
    return Found(index, None, space_of(image), _count(target, len(dataset.classes)))


def _count(target: Any, classes: int) -> dict[int, int]:
    """Return how often each class occurs in a target; the ignored index is none."""
    labels = next((getattr(target, name) for name in LABELS if isinstance(getattr(target, name, None), Tensor)), None)
    if labels is None:
        return {}
    flat = labels.as_subclass(Tensor).numpy().ravel()
    counts = np.zeros(classes, np.int64)
    for part in np.array_split(flat, -(-len(flat) // PART) or 1):
        counts += np.bincount(part[(part >= 0) & (part < classes)], minlength=classes)
    return {int(i): int(counts[i]) for i in np.flatnonzero(counts)}


def _describe(exitcode: int) -> str:
    """Say how a process ended."""
    if exitcode >= 0:
        return f"exit code {exitcode}"
    name = signal.Signals(-exitcode).name
    return f"{name}, out of memory?" if name == "SIGKILL" else name
