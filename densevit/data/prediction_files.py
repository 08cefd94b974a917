"""The file of a prediction: ``<stem><suffix>``, where the stem may have dots in it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from densevit.errors import DataError

T = TypeVar("T")


def file_of(stem: Path, suffix: str) -> Path:
    """Return the file that goes by a stem; ``suffix`` begins with a dot."""
    return stem.with_name(stem.name + suffix)


def new_file(stem: Path, suffix: str) -> Path:
    """Return the same for a file that is to be written: its folder is there."""
    path = file_of(stem, suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_json(stem: Path, content: Any) -> Path:
    """Write ``<stem>.json`` and return its path."""
    path = new_file(stem, ".json")
    path.write_text(json.dumps(content))
    return path


def read_json(stem: Path, parse: Callable[[Any], T], what: str) -> T:
    """Return what ``parse`` makes of the content of ``<stem>.json``; ``what`` tells in messages what that would be.

    Raises:
        DataError: The file is missing or damaged.
    """
    path = file_of(stem, ".json")
    try:
        return parse(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: no {what} ({error}); write them with densevit test --out") from error


def exact(values: Any) -> Any:
    """Return numbers, or lists of them, in as few digits as give each float32 back exactly."""
    return [exact(value) for value in values] if isinstance(values, list) else float(f"{values:.9g}")
