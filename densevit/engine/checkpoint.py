"""Checkpoints that are written whole or not at all, and prove themselves when they are read.

mmengine writes in place and unpickles on loading. Here a file is written beside its place, synced and renamed;
its size and SHA-256 go to a manifest, since neither torch nor safetensors notices a flipped byte. A process that is
killed in between leaves a file without an entry, never one with another's; `repair_manifest` enters it.
"""

import hashlib
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from densevit.data.file_hash import sha256_of
from densevit.engine.checkpoint_meta import meta_of
from densevit.errors import CheckpointError
from densevit.weights import load_weights, read_file

MANIFEST = "checkpoints.json"


def save_checkpoint(checkpoint: dict[str, Any], path: Path, score: float | None = None) -> None:
    """Write a checkpoint atomically and enter it, with its size, SHA-256 and step, into the manifest beside it.

    Args:
        checkpoint: ``meta`` with ``iter`` and ``epoch``, and anything else of tensors and plain values.
        path: Where to.
        score: What made it the best one, to be compared with after a resume.

    Raises:
        CheckpointError: The file cannot be written, the disk is full for instance; earlier files are untouched.
    """
    if score is not None:  # here too: the manifest may be lost
        checkpoint = {**checkpoint, "meta": {**checkpoint["meta"], "score": score}}
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    data = buffer.getbuffer()
    entry = _entry(checkpoint["meta"], len(data), hashlib.sha256(data).hexdigest())
    with _naming_what_is_kept(path):
        manifest = read_manifest(path.parent)
        temporary = _write_beside(path, data)
        if manifest.pop(path.name, None) is not None:
            _write_manifest(path.parent, manifest)
        _put_in_place(temporary, path)
        _write_manifest(path.parent, {**manifest, path.name: entry})


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write a file so that after a crash at any moment ``path`` holds either its old content or all of the new."""
    _put_in_place(_write_beside(path, data), path)


def _write_beside(path: Path, data: bytes | memoryview) -> Path:
    """Write and sync a temporary file beside ``path``; nothing is left of it where that fails."""
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


def _put_in_place(temporary: Path, path: Path) -> None:
    try:
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _naming_what_is_kept(path: Path) -> Iterator[None]:
    """Say what a run goes on from when ``path`` cannot be written."""
    try:
        yield
    except OSError as error:
        with suppress(OSError):
            path.with_name(path.name + ".tmp").unlink()
        kept = next(iter(newest_first(path.parent)), None)
        raise CheckpointError(
            f"cannot write {path}: {error.strerror}. Make room or choose another --work-dir, then go on with --resume "
            + (f"from {kept}, which is intact" if kept else "(no earlier checkpoint exists)")
        ) from error


def load_model(model: nn.Module, path: Path) -> dict[str, Any]:
    """Load all weights of a model, from a checkpoint of ours or an official release, and return what the file holds.

    Raises:
        CheckpointError: Missing, corrupt, or of another model.
    """
    content = read_checkpoint(path)
    load_state(model, content, path)
    return content


def read_checkpoint(path: Path) -> Any:
    """Return what a checkpoint of ours or an official release holds.

    Raises:
        CheckpointError: Missing or corrupt.
    """
    if (fault := find_fault(path)) is not None:
        good = [p for p in newest_first(path.parent) if p != path and find_fault(p) is None]
        raise CheckpointError(f"{path} {fault}." + (f" {good[0]} is intact" if good else ""))
    return read_file(path)


def load_state(model: nn.Module, content: Any, path: Path) -> None:
    """Load all weights of a model from the content of the checkpoint ``path``.

    Raises:
        CheckpointError: It is of another model.
    """
    config_name = meta_of(content).get("config_name")
    origin = f" It was trained with {config_name}: use that config" if config_name else ""
    try:
        report = load_weights(model, content, verbose=False)
    except CheckpointError as error:
        raise CheckpointError(f"{path} is a checkpoint of another model: {error}.{origin}") from None
    if lacking := {**dict.fromkeys(report.missing, "missing"), **report.skipped, **report.resized}:
        first = "; ".join(f"{name}: {what}" for name, what in list(lacking.items())[:3])
        raise CheckpointError(f"{path} is a checkpoint of another model ({first}).{origin}")


def find_fault(path: Path) -> str | None:
    """Say how a file differs from its entry in the manifest; None if it does not, or has no entry."""
    if not path.is_file():
        return "does not exist"
    entry = read_manifest(path.parent).get(path.name)
    if entry is None:
        return None
    if path.stat().st_size != entry["size"]:
        return f"is corrupt: {path.stat().st_size} bytes where {entry['size']} were written"
    if sha256_of(path) != entry["sha256"]:
        return "is corrupt: its bytes are not those that were written (SHA-256 differs)"
    return None


def find_latest(work_dir: Path, warn: Callable[[str], None]) -> Path | None:
    """Return the newest intact checkpoint of a run; each newer one that is not is named through ``warn``."""
    for path in newest_first(work_dir):
        if (fault := find_fault(path)) is None:
            return path
        warn(f"{path} {fault}: falling back to the one before")
    return None


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Return file name -> size, sha256, iter, epoch, and score of the best; what is damaged is left out."""
    return _parse_manifest(folder)[0]


def repair_manifest(folder: Path, warn: Callable[[str], None]) -> None:
    """Enter checkpoints that the manifest lacks, so that a run resumes from them; what is amiss is told by ``warn``.

    Entries of files that are gone are dropped: a score without a file would keep the next best one from being saved.
    The others were written whole, or they would have another name, so that reading one verifies it.
    """
    manifest, fault = _parse_manifest(folder)
    if fault:
        warn(f"{folder / MANIFEST} {fault}: checkpoints without an entry in it are verified by reading them")
    listed = dict(manifest)
    manifest = {name: entry for name, entry in listed.items() if (folder / name).exists()}
    for path in _checkpoints(folder):
        if path.name in listed:
            continue
        try:
            entry = _entry(meta_of(read_file(path)), path.stat().st_size, sha256_of(path))
        except (CheckpointError, TypeError) as error:
            reason = str(error) if isinstance(error, CheckpointError) else f"{path} is no checkpoint of a run"
            warn(f"{reason}. It has no entry in {MANIFEST} and is passed over")
            continue
        manifest[path.name] = entry
        warn(f"{path} had no entry in {MANIFEST}; it can be read, and is entered: step {entry['iter']}")
    if fault or manifest != listed:
        with _naming_what_is_kept(folder / MANIFEST):
            _write_manifest(folder, manifest)


def holds_checkpoints(folder: Path) -> bool:
    """Say whether a run has left checkpoints in ``folder``, or their manifest."""
    return bool(read_manifest(folder) or _checkpoints(folder))


def remove(path: Path) -> None:
    """Delete a checkpoint and its entry.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    with _naming_what_is_kept(path.parent / MANIFEST):
        path.unlink(missing_ok=True)
        _write_manifest(path.parent, {k: v for k, v in read_manifest(path.parent).items() if k != path.name})


def _entry(meta: dict[str, Any], size: int, sha256: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"size": size, "sha256": sha256}
    entry.update({key: meta[key] for key in ("iter", "epoch", "score") if key in meta})
    if not _is_entry(entry):
        raise TypeError("iter and epoch are not whole numbers")
    return entry


def _is_entry(value: Any) -> bool:
    kinds = {"size": int, "sha256": str, "iter": int, "epoch": int}
    return (
        isinstance(value, dict)
        and all(type(value.get(key)) is kind for key, kind in kinds.items())
        and isinstance(score := value.get("score", 0.0), int | float)
        and math.isfinite(score)
    )


def _parse_manifest(folder: Path) -> tuple[dict[str, dict[str, Any]], str | None]:
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


def _write_manifest(folder: Path, manifest: dict[str, dict[str, Any]]) -> None:
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1).encode())


def _checkpoints(folder: Path) -> list[Path]:
    """Return the files that a run calls its checkpoints."""
    return sorted(p for p in folder.glob("*.pth") if re.match(r"(iter|epoch)_\d+\.|best_", p.name) and p.is_file())


def newest_first(folder: Path) -> list[Path]:
    """Return the checkpoints of a run that are there, intact or not."""
    manifest = read_manifest(folder)
    names = sorted(manifest, key=lambda name: manifest[name]["iter"], reverse=True)
    return [folder / name for name in names if (folder / name).is_file()]
