"""The list of samples that cannot be read. A run survives a few of them; it never hides one."""

import fcntl
import json
from pathlib import Path

from densevit.data.file_hash import sha256_of
from densevit.errors import DataError


class Quarantine:
    """Records bad samples, one JSON object a line, and ends the run when there are too many.

    A line holds "path", "error", "sha256" of the file (null if it cannot be read), "replaced_by" (path of the sample
    used instead, or null) and "training". A path is listed once for training and once for evaluation, whatever the
    number of epochs, processes and runs that met it.

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

    def record(self, sample_path: str, error: Exception, replaced_by: str | None = None) -> None:
        """List a bad sample, unless it is listed already.

        Raises:
            DataError: More than the limit are bad.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until closed: other workers look and append in turn
            file.seek(0)
            listed = {entry["path"] for entry in map(json.loads, file) if entry["training"] == self.replace}
            if sample_path not in listed:
                entry = {
                    "path": sample_path,
                    "error": str(error),
                    "sha256": _sha256(sample_path),
                    "replaced_by": replaced_by,
                    "training": self.replace,
                }
                file.write(json.dumps(entry) + "\n")
        bad = len(listed | {sample_path})
        if bad > self.limit:
            raise DataError(
                f"{bad} of {self.total} samples cannot be read, at most {self.limit} may; the last one: {error}. "
                f"All are listed in {self.path}: repair the files or take them out of the dataset, "
                "delete the list, and start again with --resume"
            ) from error


def _sha256(path: str) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None
