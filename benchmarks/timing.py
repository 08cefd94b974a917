"""What the benchmarks share: runs of both sides in turn, so that a drift of the machine meets both, and tables."""

import statistics
import time
from collections.abc import Callable, Sequence

import torch

Step = Callable[[], object]


def alternate(steps: Sequence[Step], repeats: int, device: str) -> list[float]:
    """Return the median seconds of each step, run in turn; the first round is a warm-up."""
    seconds: list[list[float]] = [[] for _ in steps]
    for i in range(repeats + 1):
        for run, times in zip(steps, seconds, strict=True):
            synchronize(device)
            start = time.perf_counter()
            run()
            synchronize(device)
            if i > 0:
                times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def machine(device: str) -> str:
    """Return what the figures were measured on."""
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return f"{where}, torch {torch.__version__}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a table, its first row the header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" + "|---:" * (len(rows[0]) - 1) + "|", *lines[1:]])
