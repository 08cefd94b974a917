"""Folders that each hold the files of one class, indexed in little memory."""

import os
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from densevit.data.folders import shortened
from densevit.data.missing import missing_path
from densevit.errors import DataError


class ClassFolders:
    """The files below ``<folder>/<class>/``, class by class, sorted within each.

    The names are bytes in one block, 30 for a file of ImageNet: as Python strings they would take four times the
    memory, and as every use of a string writes its count of references, each worker would come to hold a copy.

    Args:
        folder: Folder of the folders.
        classes: Names of the folders in the order of their indices.
        suffixes: Ends of the names of files, in lower case; the names may be in either.

    Raises:
        DataError: A class has no folder or no file, or a folder belongs to no class; all of them are named.
    """

    def __init__(self, folder: Path, classes: Sequence[str], suffixes: tuple[str, ...]) -> None:
        self._folders = [os.path.join(folder, name) for name in classes]
        present = set(list_folders(folder))
        blocks, lengths, counts = [], array("I", [0]), []
        for name, path in zip(classes, self._folders, strict=True):
            files = [os.fsencode(file) for file in sorted(_files_below(path, suffixes))] if name in present else []
            blocks.append(b"".join(files))
            lengths.extend(map(len, files))
            counts.append(len(files))
        empty = [name for name, count in zip(classes, counts, strict=True) if count == 0 and name in present]
        _compare(folder, [name for name in classes if name not in present], sorted(present - set(classes)), empty)
        self._names = b"".join(blocks)
        self._ends = np.cumsum(lengths, dtype=np.uint32 if len(self._names) < 2**32 else np.uint64)
        self._starts = np.array([0, *accumulate(counts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def label(self, index: int) -> int:
        """Return the class of a file."""
        return int(np.searchsorted(self._starts, index, side="right")) - 1

    def path(self, index: int) -> str:
        """Return the path of a file."""
        name = self._names[self._ends[index] : self._ends[index + 1]]
        return os.path.join(self._folders[self.label(index)], os.fsdecode(name))


def list_folders(folder: Path, help_text: str = "") -> list[str]:
    """Return the names of the folders in a folder, sorted, without hidden ones.

    Raises:
        DataError: The folder is missing (``help_text`` is added) or holds no folder.
    """
    if not folder.is_dir():
        raise missing_path("folder", folder, help_text)
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    if not names:
        raise DataError(
            f"{folder} holds no folders, but the images of each class belong in a folder of its own: "
            f"{folder}/<class>/<image>. {help_text}".rstrip()
        )
    return names


def _files_below(folder: str, suffixes: tuple[str, ...], prefix: str = "") -> Iterator[str]:
    """Yield the paths, relative to the outermost folder, of the files that are not hidden."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.name.lower().endswith(suffixes):
                yield prefix + entry.name
            elif entry.is_dir():
                yield from _files_below(entry.path, suffixes, f"{prefix}{entry.name}/")


def _compare(folder: Path, missing: Sequence[str], extra: Sequence[str], empty: Sequence[str]) -> None:
    kinds = [(missing, "classes have no folder"), (empty, "classes have no image"), (extra, "folders are no class")]
    if found := [f"{len(names)} {what}: {shortened(names)}" for names, what in kinds if names]:
        raise DataError(
            f"{folder}: {'; '.join(found)}. Add or remove folders and images until every class has some, in every "
            "split, or list in classes those that the folders hold"
        )
