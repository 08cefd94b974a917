"""Checkpoints that are written whole or not at all, and prove themselves when they are read.

mmengine writes in place and unpickles on loading. Here a file is written beside its place, synced and renamed;
its size and SHA-256 go to a manifest, since neither torch nor safetensors notices a flipped byte. The checkpoint of a
model that is split over processes is a folder, of which the same holds.
"""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from densevit.checkpoint_folder import read_folder
from densevit.data.file_hash import sha256_of
from densevit.engine.atomic_write import delete, put_in_place, write_beside
from densevit.engine.checkpoint_meta import meta_of
from densevit.engine.manifest import enter, forget, naming_what_is_kept, newest_first, read_manifest
from densevit.engine.sharding import mesh_of
from densevit.errors import CheckpointError
from densevit.weights import load_weights, read_file


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
    written = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    with naming_what_is_kept(path):
        temporary = write_beside(path, data)
        try:
            forget(path)
        except OSError:
            delete(temporary)
            raise
        put_in_place(temporary, path)
        enter(path, written, checkpoint["meta"])


def load_model(model: nn.Module, path: Path) -> dict[str, Any]:
    """Load all weights of a model, from a checkpoint of ours or an official release, and return what it holds.

    A process of several over which the model is split reads its part of a folder only.

    Raises:
        CheckpointError: Missing, corrupt, or of another model.
    """
    content = read_checkpoint(path, mesh_of(model))
    load_state(model, content, path)
    return content


def read_checkpoint(path: Path, mesh: DeviceMesh | None = None) -> Any:
    """Return what a checkpoint of ours or an official release holds; of a folder the part of this process in ``mesh``.

    Raises:
        CheckpointError: Missing or corrupt.
    """
    if (fault := find_fault(path)) is not None:
        good = [p for p in newest_first(path.parent) if p != path and find_fault(p) is None]
        raise CheckpointError(f"{path} {fault}." + (f" {good[0]} is intact" if good else ""))
    return read_folder(path, mesh) if path.is_dir() else read_file(path)


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
    """Say how a file or folder differs from its entry in the manifest; None if it does not, or has no entry."""
    if not path.exists():
        return "does not exist"
    entry = read_manifest(path.parent).get(path.name)
    if entry is None:
        return None
    if "files" not in entry:
        return _difference(path, entry)
    for name, written in entry["files"].items():
        if (fault := _difference(path / name, written)) is not None:
            return f"is corrupt: its file {name} {fault}"
    return None


def _difference(file: Path, entry: dict[str, Any]) -> str | None:
    """Say how a file differs from what was written."""
    if not file.is_file():
        return "does not exist"
    if file.stat().st_size != entry["size"]:
        return f"is corrupt: {file.stat().st_size} bytes where {entry['size']} were written"
    if sha256_of(file) != entry["sha256"]:
        return "is corrupt: its bytes are not those that were written (SHA-256 differs)"
    return None


def find_latest(work_dir: Path, warn: Callable[[str], None]) -> Path | None:
    """Return the newest intact checkpoint of a run; each newer one that is not is named through ``warn``."""
    for path in newest_first(work_dir):
        if (fault := find_fault(path)) is None:
            return path
        warn(f"{path} {fault}: falling back to the one before")
    return None


def remove(path: Path) -> None:
    """Delete a checkpoint and its entry.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    with naming_what_is_kept(path):
        delete(path)
        forget(path)
