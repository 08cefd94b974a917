"""Checkpoints that are written whole or not at all, and prove themselves when they are read.

mmengine writes in place and unpickles on loading. Here a file is written beside its place, synced and renamed;
its size and SHA-256 go to a manifest, since neither torch nor safetensors notices a flipped byte.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from densevit.data.file_hash import sha256_of
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
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    data = buffer.getbuffer()
    entry = {
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "iter": checkpoint["meta"]["iter"],
        "epoch": checkpoint["meta"]["epoch"],
        **({} if score is None else {"score": score}),
    }
    try:
        write_atomically(path, data)
        earlier = {name: e for name, e in read_manifest(path.parent).items() if name != path.name}
        _write_manifest(path.parent, {**earlier, path.name: entry})  # the last one written is the last entry
    except OSError as error:
        kept = next(iter(_newest_first(path.parent)), None)
        raise CheckpointError(
            f"cannot write {path}: {error.strerror}. Make room or choose another --work-dir, then go on with --resume "
            + (f"from {kept}, which is intact" if kept else "(no earlier checkpoint exists)")
        ) from error


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write a file so that after a crash at any moment ``path`` holds either its old content or all of the new."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load_model(model: nn.Module, path: Path) -> dict[str, Any]:
    """Load all weights of a model, from a checkpoint of ours or an official release, and return what the file holds.

    Raises:
        CheckpointError: Missing, corrupt, or of another model.
    """
    if (fault := find_fault(path)) is not None:
        good = [p for p in _newest_first(path.parent) if p != path and find_fault(p) is None]
        raise CheckpointError(f"{path} {fault}." + (f" {good[0]} is intact" if good else ""))
    content = read_file(path)
    meta = content.get("meta", {}) if isinstance(content, dict) else {}
    origin = f" It was trained with {meta['config_name']}: use that config" if meta.get("config_name") else ""
    try:
        report = load_weights(model, content, verbose=False)
    except CheckpointError as error:
        raise CheckpointError(f"{path} is a checkpoint of another model: {error}.{origin}") from None
    if lacking := {**dict.fromkeys(report.missing, "missing"), **report.skipped, **report.resized}:
        first = "; ".join(f"{name}: {what}" for name, what in list(lacking.items())[:3])
        raise CheckpointError(f"{path} is a checkpoint of another model ({first}).{origin}")
    return content


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
    for path in _newest_first(work_dir):
        if (fault := find_fault(path)) is None:
            return path
        warn(f"{path} {fault}: falling back to the one before")
    return None


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Return file name -> size, sha256, iter, epoch; empty where there is no manifest."""
    path = folder / MANIFEST
    return json.loads(path.read_text()) if path.is_file() else {}


def remove(path: Path) -> None:
    """Delete a checkpoint and its entry."""
    path.unlink(missing_ok=True)
    _write_manifest(path.parent, {k: v for k, v in read_manifest(path.parent).items() if k != path.name})


def _write_manifest(folder: Path, manifest: dict[str, dict[str, Any]]) -> None:
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1).encode())


def _newest_first(folder: Path) -> list[Path]:
    """Return the files of the manifest, the last written first, and the best ones after the periodic ones.

    The number of the step does not tell: a run that goes on from an earlier step, or by larger batches, counts fewer.
    """
    names = sorted(reversed(read_manifest(folder)), key=lambda name: name.startswith("best_"))
    return [folder / name for name in names if (folder / name).is_file()]
