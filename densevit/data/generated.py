"""Folders of generated data: what is in them was made here, each file whole."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from densevit.errors import DataError

MARKER = "demo.json"


def claim(root: Path, made: dict[str, int], patterns: Sequence[str]) -> None:
    """Mark ``root``, with the files of these patterns, as demo data made like this; remove what was made otherwise.

    Raises:
        DataError: There are such files, and no mark.
    """
    marker = root / MARKER
    files = [path for pattern in patterns for path in root.glob(pattern)]
    if files and not marker.exists():
        raise DataError(f"{root} holds data that were not generated here; choose another --root")
    if not marker.exists() or json.loads(marker.read_text()) != made:
        remove(files)
        write_whole(marker, json.dumps(made).encode())


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(data)
    os.replace(part, path)


def remove(paths: Iterable[Path]) -> None:
    """Delete files; those that are gone already are no error."""
    for path in list(paths):
        path.unlink(missing_ok=True)
