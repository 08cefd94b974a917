"""What the benchmarks share: runs of both sides in turn, so that a drift of the machine meets both, and tables."""

import re
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

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


def process_memory(entry: str) -> int:
    """Return a number of bytes that Linux keeps; `resource.getrusage` would begin with the peak of the parent."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{entry}:\s+(\d+)", status)[1])  # type: ignore[index]


def peak_memory(run: Step, device: str) -> float:
    """Return the peak of two steps beyond what there is, in MB; measure it in a process of its own."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if device == "cuda" else process_memory("VmRSS")
    run()
    run()
    after = torch.cuda.max_memory_allocated() if device == "cuda" else process_memory("VmHWM")
    return (after - before) / 2**20


def machine(device: str) -> str:
    """Return what the figures were measured on."""
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return f"{where}, torch {torch.__version__}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a table, its first row the header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" + "|---:" * (len(rows[0]) - 1) + "|", *lines[1:]])


def report(
    header: Sequence[str], cases: Iterable[Any], measure: Callable[[Any], Sequence[str]], device: str, out: Path | None
) -> None:
    """Print the row of each case as it is measured, then the table, and write that to ``out``.

    Cases that are ``compiled`` may fail: not every machine can compile.
    """
    rows = [header]
    for case in cases:
        try:
            rows.append(measure(case))
        except Exception as error:
            if not case.compiled:
                raise
            print(f"{case}: skipped, cannot compile here ({str(error).strip().splitlines()[0]})", flush=True)
            continue
        print("  ".join(rows[-1]), flush=True)
    text = f"{machine(device)}\n\n{markdown(rows)}\n"
    print(f"\n{text}", end="")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
