"""Lists of videos and their classes."""

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from densevit.data.packed_bytes import PackedBytes
from densevit.errors import ConfigError, DataError


class ClipList:
    """Videos and labels of a file with one ``path label`` a line, or ``path,label`` in a .csv.

    A label is the index of a class or its name. Empty lines, and the first line of a .csv if it holds no label, are
    passed over. Paths are relative to ``folder``; they may have spaces.

    Raises:
        DataError: The file is missing or empty, a line is none such, or two give a video different labels.
    """

    def __init__(self, path: Path, folder: Path, classes: Sequence[str]) -> None:
        self._folder = folder
        indices = {**{str(i): i for i in range(len(classes))}, **{name: i for i, name in enumerate(classes)}}
        names, labels = [], []
        first: dict[str, int] = {}
        for number, (name, label) in _entries(path):
            if label not in indices:
                if number == 1 and path.suffix == ".csv":
                    continue
                raise DataError(
                    f"{path}, line {number}: label {label!r} is neither a number from 0 to {len(classes) - 1} nor one "
                    "of the classes; mend the line, or give classes"
                )
            if first.setdefault(name, indices[label]) != indices[label]:
                raise DataError(f"{path}, line {number}: {name} is listed before with another label; remove one")
            names.append(os.fsencode(name))
            labels.append(indices[label])
        if not names:
            raise DataError(f"{path} lists no video; a line is `path label`")
        self._names, self._labels = PackedBytes(names), np.array(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._labels)

    def label(self, index: int) -> int:
        """Return the class of a video."""
        return int(self._labels[index])

    def path(self, index: int) -> str:
        """Return the path of a video."""
        return str(self._folder / os.fsdecode(self._names[index]))


def read_class_names(path: Path) -> list[str]:
    """Return the names of classes in a file of one a line.

    Raises:
        ConfigError: There is no such file, or it is no text.
    """
    try:
        return [line.strip() for line in _lines(path) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        hint = "List the names in classes, or write them there, one a line"
        raise ConfigError(f"{path}: {getattr(error, 'strerror', error)}. {hint}") from None


def _entries(path: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    """Yield the numbers of the lines, from 1, and what they say."""
    try:
        lines = _lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: no list of videos ({error}); check data_root and ann_file") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        commas = path.suffix == ".csv" and "," in line  # lists with spaces are called .csv, too
        try:
            parts = next(csv.reader([line])) if commas else line.rsplit(maxsplit=1)
        except csv.Error:  # Python 3.10 does not read NUL
            parts = []
        if len(parts) < 2 or not parts[0].strip():
            raise DataError(f"{path}, line {number}: {line!r} is not `path label`")
        yield number, (parts[0].strip(), parts[1].strip())


def _lines(path: Path) -> list[str]:
    """Return the lines of a text, however they end."""
    return path.read_text(encoding="utf-8-sig").split("\n")
