"""Prepared volumes on disk. An entry is never stale: its key is of all that it was made of."""

import hashlib
import json
import os
import shutil
import time
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densevit.data.file_hash import sha256_of
from densevit.data.volume import on_grid
from densevit.errors import ConfigError

FORMAT = 1  # of entries: those of another one are made anew
PACKAGES = ("monai", "nibabel", "numpy", "torch")
INDEX, PART, AFFINE = "checksums.json", ".part-", ".affine"
SMALL = 2**14  # bytes, up to which reading costs no more than mapping
ABANDONED = 24 * 3600  # seconds after which an unfinished entry has no writer any more

Items = dict[str, Tensor]


class VolumeCache:
    """Tensors by name, kept as .npy files that are mapped, so that a crop reads only what it shows.

    The key of an entry is the SHA-256 of the content of its files, of ``recipe``, and of the versions of the packages
    that prepared it. Each array has a checksum, which a process verifies once; what is damaged or incomplete is made
    anew. Entries appear whole, whatever else writes to the folder; where nothing can be written, nothing is kept.
    Nothing is ever removed: delete the folder at will.

    Args:
        folder: Where entries are kept.
        recipe: What is done to the files, in values of JSON.

    Raises:
        ConfigError: ``recipe`` holds other values.
    """

    def __init__(self, folder: str | Path, recipe: Any) -> None:
        self.folder = Path(folder)
        made_by = {"format": FORMAT, "recipe": recipe, **{name: version(name) for name in PACKAGES}}
        try:
            self._made_by = json.dumps(made_by, sort_keys=True)
        except TypeError as error:
            raise ConfigError(f"cache: what prepares volumes must be configured by plain values ({error})") from error
        self._verified: set[Path] = set()
        self._hashes: dict[tuple[str, int, int], str] = {}
        self._writable = True

    def get(self, files: Sequence[str], make: Callable[[], Items]) -> Items:
        """Return the tensors that ``make`` makes of these files, MetaTensors with their affines.

        Raises:
            DataError: ``make`` raises it.
        """
        try:
            entry = self.folder / self._key(files)
        except OSError:  # the file is missing, of which reading it tells more
            return make()
        if entry.is_dir():
            try:
                return self._read(entry)
            except (OSError, ValueError, KeyError, TypeError) as error:
                warnings.warn(f"{entry} is damaged ({error}): made anew", stacklevel=2)
                shutil.rmtree(entry, ignore_errors=True)
        items = make()
        if self._writable:
            try:
                self._write(entry, items)
            except OSError as error:
                self._writable = False
                warnings.warn(f"cannot write to {self.folder} ({error}): going on without a cache", stacklevel=2)
        return items

    def _key(self, files: Sequence[str]) -> str:
        digest = hashlib.sha256(self._made_by.encode())
        for file in files:
            status = os.stat(file)
            state = (file, status.st_size, status.st_mtime_ns)
            if state not in self._hashes:
                self._hashes[state] = sha256_of(file)
            digest.update(self._hashes[state].encode())
        return digest.hexdigest()

    def _read(self, entry: Path) -> Items:
        arrays: Items = {}
        checksums = dict(json.loads((entry / INDEX).read_text()))
        if checksums.keys() != {file.stem for file in entry.glob("*.npy")}:
            raise ValueError(f"{INDEX} is not of its arrays")
        for name, checksum in checksums.items():
            file = entry / f"{name}.npy"
            if entry not in self._verified and _checksum(file) != checksum:
                raise ValueError(f"checksum of {file.name}")
            mapped = file.stat().st_size > SMALL
            arrays[name] = torch.from_numpy(np.load(file, mmap_mode="c" if mapped else None, allow_pickle=False))
        self._verified.add(entry)
        affines = {name: arrays.pop(name) for name in list(arrays) if name.endswith(AFFINE)}
        return {
            name: on_grid(x, affines[name + AFFINE]) if name + AFFINE in affines else x for name, x in arrays.items()
        }

    def _write(self, entry: Path, items: Items) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        part = self.folder / f"{PART}{uuid.uuid4().hex}"
        part.mkdir()
        try:
            checksums = {}
            for name, tensor in _arrays(items):
                np.save(part / f"{name}.npy", np.ascontiguousarray(tensor), allow_pickle=False)
                checksums[name] = _checksum(part / f"{name}.npy")
            (part / INDEX).write_text(json.dumps(checksums))
            os.rename(part, entry)
        except OSError:
            if not entry.is_dir():  # else another process was first
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what killed processes left."""
        for part in self.folder.glob(f"{PART}*"):
            with suppress(FileNotFoundError):  # another process has finished with it
                if time.time() - part.stat().st_mtime > ABANDONED:
                    shutil.rmtree(part, ignore_errors=True)


def _arrays(items: Items) -> Iterator[tuple[str, np.ndarray]]:
    """Yield tensors by name, and the affines of those that have one."""
    for name, item in items.items():
        yield name, item.as_subclass(Tensor).numpy()
        if (affine := getattr(item, "affine", None)) is not None:
            yield name + AFFINE, affine.numpy()


def _checksum(file: Path) -> int:
    return zlib.crc32(np.memmap(file, np.uint8, mode="r").data)
