"""What a folder says of its checkpoints: size, SHA-256, step and score of each, in the order of their writing.

A process that is killed leaves a checkpoint without an entry, never one with that of another. `repair` enters it, or
all of them where the manifest itself is lost.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from densevit.checkpoint_folder import CONTENT
from densevit.data.file_hash import sha256_of
from densevit.engine.atomic_write import write_atomically
from densevit.engine.checkpoint_meta import meta_of
from densevit.errors import CheckpointError
from densevit.weights import read_file

MANIFEST = "checkpoints.json"
NAME = re.compile(r"((iter|epoch)_\d+|best_[^.]+)(\.pth)?")  # a file, or the folder of a split model
Entries = dict[str, dict[str, Any]]


def read_manifest(folder: Path) -> Entries:
    """Return the entry of each checkpoint by its name, the last written one last; what is damaged is left out.

    It has ``iter``, ``epoch``, ``score`` of a best one, ``size`` and ``sha256``; a folder's has these of its ``files``.
    """
    return _parse(folder)[0]


def enter(path: Path, written: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Enter a checkpoint into the manifest beside it, as the last one that was written."""
    _write(path.parent, {**_without(path), path.name: _entry(written, meta)})


def forget(path: Path) -> None:
    """Drop the entry of a checkpoint, if it has one: it is going to be replaced, or is deleted."""
    if path.name in read_manifest(path.parent):
        _write(path.parent, _without(path))


def newest_first(folder: Path) -> list[Path]:
    """Return the checkpoints of a run that are there, intact or not: the last written first, the best at the end.

    The number of the step does not tell: a run that goes on from an earlier step, or by larger batches, counts fewer.
    """
    names = sorted(reversed(read_manifest(folder)), key=lambda name: name.startswith("best_"))
    return [folder / name for name in names if (folder / name).exists()]


def newest(folder: Path) -> Path | None:
    """Return the first of these, if there is one."""
    return next(iter(newest_first(folder)), None)


def holds_checkpoints(folder: Path) -> bool:
    """Say whether a run has left checkpoints in ``folder``, or entries of some."""
    return bool(read_manifest(folder) or _checkpoints(folder))


def repair(folder: Path, warn: Callable[[str], None]) -> None:
    """Enter checkpoints that the manifest lacks, so that a run resumes from them; what is amiss is told by ``warn``.

    They were written whole, or they would have another name, so that reading one verifies it. Entries of checkpoints
    that are gone are dropped: a score without a file would keep the next best one from being saved.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    listed, fault = _parse(folder)
    if fault:
        warn(f"{folder / MANIFEST} {fault}: checkpoints without an entry in it are verified by reading them")
    entries = {name: entry for name, entry in listed.items() if (folder / name).exists()}
    found: Entries = {}
    for path in (path for path in _checkpoints(folder) if path.name not in listed):
        try:
            found[path.name] = _entry(_facts(path), meta_of(read_file(path)))
        except (CheckpointError, TypeError) as error:
            reason = str(error) if isinstance(error, CheckpointError) else f"{path} is no checkpoint of a run"
            warn(f"{reason}. It has no entry in {MANIFEST} and is passed over")
        else:
            warn(f"{path} had no entry in {MANIFEST}; it can be read, and is entered: step {found[path.name]['iter']}")
    # What a kill left without an entry was written last; of a damaged manifest only the steps tell the order.
    entries |= _by_step(found)
    entries = _by_step(entries) if fault else entries
    if fault or list(entries) != list(listed):
        with naming_what_is_kept(folder / MANIFEST):
            _write(folder, entries)


@contextmanager
def naming_what_is_kept(path: Path) -> Iterator[None]:
    """Say what a run goes on from when ``path`` cannot be written."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> CheckpointError:
    """Return the error that says that a checkpoint cannot be written, and which one there is."""
    kept = newest(path.parent)
    return CheckpointError(
        f"cannot write {path}: {error.strerror}. Make room or choose another --work-dir, then go on with --resume "
        + (f"from {kept}, which is intact" if kept else "(no earlier checkpoint exists)")
    )


def _checkpoints(folder: Path) -> list[Path]:
    """Return what has the name of a checkpoint of a run, and is a file or a folder of parts."""
    paths = sorted(path for path in folder.glob("*_*") if NAME.fullmatch(path.name))
    return [p for p in paths if p.suffix == ".pth" or (p / CONTENT).is_file()]


def _facts(path: Path) -> dict[str, Any]:
    if path.is_dir():
        return {"files": {file.name: _facts(file) for file in sorted(path.iterdir())}}
    return {"size": path.stat().st_size, "sha256": sha256_of(path)}


def _entry(written: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    entry = {**written, **{key: meta[key] for key in ("iter", "epoch", "score") if key in meta}}
    if not _is_entry(entry):
        raise TypeError("iter, epoch or score is no number")
    return entry


def _is_entry(value: Any) -> bool:
    if not isinstance(value, dict) or type(value.get("iter")) is not int or type(value.get("epoch")) is not int:
        return False
    score, files = value.get("score", 0.0), value.get("files", {"": value})
    if not isinstance(score, int | float) or not math.isfinite(score) or not isinstance(files, dict):
        return False
    return all(
        isinstance(f, dict) and type(f.get("size")) is int and isinstance(f.get("sha256"), str) for f in files.values()
    )


def _by_step(entries: Entries) -> Entries:
    return dict(sorted(entries.items(), key=lambda item: item[1]["iter"]))


def _without(path: Path) -> Entries:
    return {name: entry for name, entry in read_manifest(path.parent).items() if name != path.name}


def _parse(folder: Path) -> tuple[Entries, str | None]:
    """Return the entries that are as we write them, and what is wrong with the others, if anything."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}, "is missing" if _checkpoints(folder) else None
    try:
        content = json.loads(path.read_bytes())
    except (OSError, RecursionError, ValueError) as error:
        return {}, f"is damaged ({error})"
    if not isinstance(content, dict):
        return {}, f"is damaged (it holds a {type(content).__name__} in place of entries)"
    # A name that leads elsewhere could have a file deleted there.
    entries = {name: value for name, value in content.items() if _is_entry(value) and Path(name).name == name}
    damaged = sorted(content.keys() - entries.keys())
    return entries, f"is damaged (in what it says of {', '.join(damaged)})" if damaged else None


def _write(folder: Path, entries: Entries) -> None:
    write_atomically(folder / MANIFEST, json.dumps(entries, indent=1).encode())
