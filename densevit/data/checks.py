"""Checks of a dataset before a run: what contradicts the config, and what cannot be read."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from densevit.errors import ConfigError, DataError

SHOWN = 20  # problems that a check prints


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


def raise_problems(problems: Sequence[str], where: str) -> None:
    """Raise one `DataError` that counts all problems and prints the first; none raise nothing."""
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems[:SHOWN])
        rest = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise DataError(f"{len(problems)} problems in {where}:{listed}{rest}")


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
