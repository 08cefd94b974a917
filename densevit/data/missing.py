"""The error of a file or folder that a config names and that is not there."""

import difflib
import os
from pathlib import Path

from densevit.errors import DataError


def missing_path(what: str, path: Path, help_text: str = "") -> DataError:
    """Return the error, which suggests what has nearly the name of the first part of the path that is missing.

    Args:
        what: "file" or "folder".
        path: What is not there.
        help_text: Where to get it.
    """
    absent = next((part for part in reversed(path.parents) if not part.exists()), path)
    folder = absent.parent
    names = os.listdir(folder) if folder.is_dir() and os.access(folder, os.R_OK) else []
    near = difflib.get_close_matches(absent.name, [name for name in names if name != absent.name], n=1)
    hint = f"Did you mean {folder / near[0]}? " if near else ""
    way_out = hint + (help_text or "Correct the path in the config, or pass --data-root")
    return DataError(f"no {what} {path} (working directory: {Path.cwd()}). {way_out}")
