"""Checkpoints that several processes write together: a folder each, whole or not at all."""

import shutil
from pathlib import Path
from typing import Any

from mmengine import dist

from densevit.checkpoint_folder import write_folder
from densevit.data.file_hash import sha256_of
from densevit.engine.atomic_write import delete, sync
from densevit.engine.manifest import enter, forget, unwritable

OLD = ".old"


def save_folder(checkpoint: dict[str, Any], path: Path, score: float | None = None) -> None:
    """Write a checkpoint whose tensors are split over processes, all of which call this, as `save_checkpoint` does.

    Raises:
        CheckpointError: In all processes, as soon as one of them cannot write; earlier checkpoints are untouched.
    """
    if score is not None:  # here too: the manifest may be lost
        checkpoint = {**checkpoint, "meta": {**checkpoint["meta"], "score": score}}
    temporary, first = path.with_name(path.name + ".tmp"), dist.is_main_process()
    if first:
        shutil.rmtree(temporary, ignore_errors=True)
    dist.barrier()
    files, failure = {}, None
    try:
        write_folder(checkpoint, temporary)
        files = _facts(temporary, dist.get_rank())
    except OSError as error:
        failure = error
    ranks = dist.all_gather_object((files, failure))
    failure = next((error for _, error in ranks if error is not None), None)
    if first and failure is None:
        try:
            forget(path)  # after a kill, the old entry must not be that of the new folder
            _put_in_place(temporary, path)
            enter(path, {"files": {k: v for files, _ in ranks for k, v in files.items()}}, checkpoint["meta"])
            shutil.rmtree(_aside(path), ignore_errors=True)
        except OSError as error:
            failure = error
    failure = dist.all_gather_object(failure)[0]
    if failure is not None:
        if first:
            shutil.rmtree(temporary, ignore_errors=True)
        raise unwritable(path, failure) from failure


def clean(folder: Path) -> None:
    """Remove what a killed run left half-written, and put back what it had begun to replace."""
    for temporary in folder.glob("*.tmp"):
        delete(temporary)
    for aside in folder.glob(f"*{OLD}"):
        place = aside.with_name(aside.name.removesuffix(OLD))
        if place.exists():
            delete(aside)
        else:
            aside.rename(place)


def _facts(folder: Path, rank: int) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of the files that a process wrote; the first one wrote what describes them too."""
    own = [
        file for file in folder.iterdir() if file.name.startswith(f"__{rank}_" if rank else ("__0_", ".", "content"))
    ]
    return {file.name: {"size": file.stat().st_size, "sha256": sha256_of(file)} for file in sorted(own)}


def _aside(path: Path) -> Path:
    return path.with_name(path.name + OLD)


def _put_in_place(temporary: Path, path: Path) -> None:
    """Rename a folder; one that was in its place stays beside it until the manifest has the new one."""
    sync(temporary)
    if path.exists():
        shutil.rmtree(_aside(path), ignore_errors=True)
        path.rename(_aside(path))
    temporary.rename(path)
    sync(path.parent)
