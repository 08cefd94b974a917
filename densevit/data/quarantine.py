"""The list of samples that cannot be read. A run survives a few of them; it never hides one."""

import fcntl
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from densevit.data.file_hash import sha256_of
from densevit.errors import DataError


class Quarantine:
    """Records bad samples, one JSON object a line, and ends the run when there are too many.

    A line holds "path", "error", which names the file that is at fault, "sha256" of the file (null if it cannot be
    read), "others", the further files of the sample, such as its mask, with the SHA-256 of each, "replaced_by" (path
    of the sample used instead, or null) and "training". A path is listed once for training and once for evaluation,
    whatever the number of epochs, processes and runs that met it.

    A list that is damaged ends no run: a last line that was left unfinished by a killed process is cut off, as its
    sample is listed again when it is met, and other lines that cannot be read stay and count for nothing. Both are
    said by a warning.

    Args:
        path: The list, kept over the runs of a work directory.
        total: Number of samples of the dataset.
        replace: In training, the dataset puts the next readable sample in place of a bad one; in evaluation it
            leaves a bad one out.
        limit_share: Share of ``total`` that may be bad; a single one always may.
    """

    def __init__(self, path: Path, total: int, replace: bool, limit_share: float = 0.01) -> None:
        self.path = path
        self.total = total
        self.replace = replace
        self.limit = max(1, int(limit_share * total))

    def record(self, files: Sequence[str], error: Exception, replaced_by: str | None = None) -> None:
        """List a bad sample, unless it is listed already.

        Args:
            files: Of the sample, its input first.
            error: Why it cannot be read.
            replaced_by: Path of the sample used instead.

        Raises:
            DataError: More than the limit are bad, or the list cannot be written.
        """
        try:
            bad = self._enter(files, error, replaced_by)
        except OSError as problem:
            raise DataError(
                f"{error}. This cannot be listed in {self.path}: {problem.strerror}; make room or let the file be "
                "written, and start again with --resume"
            ) from problem
        if bad > self.limit:
            raise DataError(
                f"{bad} of {self.total} samples cannot be read, at most {self.limit} may; the last one: {error}. "
                f"All are listed in {self.path}: repair the files or take them out of the dataset, "
                "delete the list, and start again with --resume"
            ) from error

    def _enter(self, files: Sequence[str], error: Exception, replaced_by: str | None) -> int:
        """Return how many are listed with this one."""
        path, *others = files
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until closed: other workers look and append in turn
            listed = {entry["path"] for entry in self._entries(file) if entry["training"] == self.replace}
            if path not in listed:
                entry = describe(path, error, others)
                entry |= {"replaced_by": replaced_by, "training": self.replace}
                file.write(json.dumps(entry).encode() + b"\n")
        return len(listed | {path})

    def _entries(self, file: BinaryIO) -> list[dict[str, Any]]:
        """Return the entries of the opened list, and leave it such that a line can be appended."""
        file.seek(0)
        content = file.read()
        lines = content.split(b"\n")
        if (last := lines[-1]) and _entry(last) is None:
            warnings.warn(f"{self.path}: its last line was never finished, and is cut off", stacklevel=2)
            file.truncate(len(content) - len(lines.pop()))
        elif last:
            file.write(b"\n")
        entries = [_entry(line) for line in lines if line.strip()]
        if damaged := entries.count(None):
            warnings.warn(f"{self.path}: {damaged} of its lines cannot be read, and are passed over", stacklevel=2)
        return [entry for entry in entries if entry is not None]


def listed(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a list, in order; none if there is no list."""
    if not path.is_file():
        return []
    entries = [_entry(line) for line in path.read_bytes().split(b"\n")]
    return [entry for entry in entries if entry is not None]


def describe(path: str, error: Exception | str, others: Sequence[str] = ()) -> dict[str, Any]:
    """Return what is said of a bad sample: "path", "error", "sha256" and "others", see `Quarantine`."""
    hashes = {other: _sha256(other) for other in others}
    return {"path": path, "error": str(error), "sha256": _sha256(path), "others": hashes}


def _entry(line: bytes) -> dict[str, Any] | None:
    """Return what a line says of a sample; None if it is none of ours."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    ours = isinstance(entry, dict) and isinstance(entry.get("path"), str) and "training" in entry
    return entry if ours else None


def _sha256(path: str) -> str | None:
    try:
        return sha256_of(path)
    except (OSError, ValueError):  # a list may name what can be no file
        return None
