"""Files that are written whole or not at all."""

import os
import shutil
from pathlib import Path


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write a file so that after a crash at any moment ``path`` holds either its old content or all of the new."""
    put_in_place(write_beside(path, data), path)


def write_beside(path: Path, data: bytes | memoryview) -> Path:
    """Write and sync a temporary file beside ``path``, and return it; nothing is left of it where that fails."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def put_in_place(temporary: Path, path: Path) -> None:
    """Give a temporary file its name; nothing is left of it where that fails."""
    try:
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(folder: Path) -> None:
    """Have the names of the files of a folder written to the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def delete(path: Path) -> None:
    """Delete a file or a folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
