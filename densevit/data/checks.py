"""Checks of a dataset before a run: what contradicts the config, and what cannot be read."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from densevit.data.dataset import DenseDataset
from densevit.errors import ConfigError, DataError

SHOWN = 20  # lines of problems that a check prints
ALIKE = 5  # files of one problem that each have a line


class ContradictionError(DataError):
    """Files that can be read do not fit each other or the config."""


def find_problems(test: Callable[[int], Any], indices: Collection[int]) -> tuple[list[str], list[str]]:
    """Call ``test`` with each index; return the messages of contradictions and of unreadable files."""
    contradicting, unreadable = [], []
    console = Console(stderr=True)
    for index in track(indices, "checking data", console=console, transient=True, disable=not console.is_terminal):
        try:
            test(index)
        except ContradictionError as error:
            contradicting.append(str(error))
        except DataError as error:
            unreadable.append(str(error))
    return contradicting, unreadable


def check_samples(
    dataset: DenseDataset, mode: str, where: str, quick: Sequence[tuple[Callable[[int], Any], int]]
) -> None:
    """Raise one `DataError` for what is wrong with the samples of a dataset.

    What cannot be read is passed over if it is little enough for a quarantine, which records it when it is met.

    Args:
        dataset: Whose samples are read.
        mode: "all" reads every sample; "sample" calls ``quick`` only.
        where: The files, for the message.
        quick: Tests by index that are cheaper than reading, and with how many indices each is called.

    Raises:
        DataError: Files are unreadable or contradict each other.
        ConfigError: There is no such mode.
    """
    if mode not in ("sample", "all"):
        raise ConfigError(f'data are checked by "sample" or "all", not by {mode!r}')
    contradicting: list[str] = []
    unreadable: list[str] = []
    for test, count in [(dataset.read_checked, len(dataset))] if mode == "all" else quick:
        found = find_problems(test, evenly(len(dataset), count))
        contradicting += found[0]
        unreadable += found[1]
    unreadable = list(dict.fromkeys(unreadable))
    if mode == "sample" and dataset.quarantine is not None and len(unreadable) <= dataset.quarantine.limit:
        unreadable = []
    raise_problems(contradicting + unreadable, where)


def raise_problems(problems: Sequence[str], where: str) -> None:
    """Raise one `DataError` that counts all problems and lists them, shortened; none raise nothing."""
    if problems:
        listed = "".join(f"\n  {line}" for line in shortened(problems))
        raise DataError(f"{len(problems)} problem{'s' * (len(problems) > 1)} in {where}:{listed}")


def shortened(problems: Sequence[str]) -> list[str]:
    """Return the lines that are printed of problems; many that differ in the file only are one.

    The file is what stands before the first ": ".
    """
    groups: dict[str, list[str]] = {}
    for problem in problems:
        groups.setdefault(problem.partition(": ")[2] or problem, []).append(problem)
    lines = []
    for same in groups.values():
        lines += same if len(same) <= ALIKE else [f"{same[0]} ({len(same)} such files)"]
    rest = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return lines[:SHOWN] + rest


def evenly(count: int, at_most: int) -> list[int]:
    """Return up to ``at_most`` indices below ``count``, evenly spaced, the first and the last among them."""
    return np.linspace(0, count - 1, min(count, at_most)).round().astype(int).tolist()


def class_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of classes as a config gives them.

    Raises:
        ConfigError: They are no sequence of names, or not all different.
    """
    if isinstance(classes, str) or not classes or not all(isinstance(name, str) for name in classes):
        raise ConfigError(f"classes must be a sequence of names, not {classes!r}")
    if twice := [name for name, count in Counter(classes).items() if count > 1]:
        raise ConfigError(f"classes names {', '.join(sorted(twice))} more than once")
    return tuple(classes)
