"""Checkpoints of several processes: a folder of torch.distributed.checkpoint, and JSON for all that is no tensor.

Each process writes the parts of tensors that it holds. torch describes the parts in ``.metadata``, which is a pickle
and would be executed on reading; it is written, since other tools expect it, but what is read here is ``content.json``.
"""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.dist import is_main_process
from torch import Tensor

from densevit.errors import CheckpointError

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata
    from torch.distributed.device_mesh import DeviceMesh

CONTENT = "content.json"
VERSION = 1
_MARKS = {"$tensor", "$items", "$tuple"}


def write_folder(content: Mapping[str, Any], folder: Path) -> None:
    """Write nested tensors and plain values; all processes, if there are several, call it with the same plain values.

    Tensors that are split over the processes are written by all of them, the others by the first process.

    Raises:
        OSError: It cannot be written. Each process raises it, whichever failed.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.tensor import DTensor

    tensors: dict[str, Tensor] = {}
    tree = _encode(content, "", tensors)
    writer = _writer(folder)
    planner = dcp.DefaultSavePlanner(
        flatten_state_dict=False, flatten_sharded_tensors=False, dedup_save_to_lowest_rank=True
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is one process
            metadata = dcp.save(tensors, storage_writer=writer, planner=planner)
    except CheckpointException as error:
        raise _first_cause(error) from error
    if is_main_process():
        split = {name for name, value in tensors.items() if isinstance(value, DTensor)}
        text = json.dumps({"version": VERSION, "content": tree, "tensors": _describe(metadata, writer.places, split)})
        with open(folder / CONTENT, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


def read_folder(folder: Path, mesh: "DeviceMesh | None" = None) -> dict[str, Any]:
    """Return what was written, in one process or in each of several, without communication.

    Args:
        folder: What `write_folder` wrote, in whatever number of processes.
        mesh: Split what was split when it was written over these processes, along dimension 0 as FSDP does, and read
            only the parts of this process, to its device. All else is read whole, to the CPU.

    Raises:
        CheckpointError: It is missing, corrupt, or was written by another program.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.tensor import Shard
    from torch.distributed.tensor import zeros as split_zeros

    path = folder / CONTENT
    if not path.is_file():
        raise CheckpointError(_no_checkpoint(folder))
    try:
        described = json.loads(path.read_text())
        if described["version"] != VERSION:
            raise CheckpointError(f"{path} is of version {described['version']}, not {VERSION}: update densevit")
        tensors: dict[str, Tensor] = {}
        for name, entry in described["tensors"].items():
            if mesh is not None and entry["split"]:
                tensors[name] = split_zeros(entry["size"], dtype=_dtype(entry), device_mesh=mesh, placements=[Shard(0)])
            else:
                tensors[name] = torch.zeros(entry["size"], dtype=_dtype(entry))
        planner = dcp.DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is one process, which there need not be
            dcp.load(tensors, storage_reader=_reader(folder, described["tensors"]), planner=planner, no_dist=True)
        content: dict[str, Any] = _decode(described["content"], tensors)
        return content
    except CheckpointError:
        raise
    # What a damaged file raises depends on the byte; torch's own exception is no `Exception`.
    except (Exception, CheckpointException) as error:
        cause = _first_cause(error) if isinstance(error, CheckpointException) else error
        reason = str(cause).strip().partition("\n")[0]
        raise CheckpointError(
            f"{folder} is corrupt; fetch it again ({type(cause).__name__}{': ' * bool(reason)}{reason})"
        ) from error


def _no_checkpoint(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} does not exist"
    if (folder / ".metadata").exists():
        return (
            f"{folder} is no checkpoint of ours: it has no {CONTENT}. The .metadata of other programs is a pickle, "
            "which could do anything. If you trust the folder, make one file of it by "
            "torch.distributed.checkpoint.format_utils.dcp_to_torch_save"
        )
    return (
        f"{folder} is a folder, and no checkpoint: it has no {CONTENT}. Name the file or folder of a checkpoint in it"
    )


def _encode(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return what JSON can hold of a nested value, and collect its tensors by their place in it."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach()
        return {"$tensor": name}
    if isinstance(value, Mapping):
        items = {key: _encode(part, f"{name}/{key}" if name else str(key), tensors) for key, part in value.items()}
        plain = all(isinstance(key, str) for key in items) and not _MARKS & items.keys()
        return items if plain else {"$items": list(items.items())}
    if isinstance(value, list | tuple):
        parts = [_encode(part, f"{name}/{index}", tensors) for index, part in enumerate(value)]
        return {"$tuple": parts} if isinstance(value, tuple) else parts
    return value


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$tuple" in value:
        return tuple(_decode(value["$tuple"], tensors))
    if "$items" in value:
        return {key: _decode(part, tensors) for key, part in value["$items"]}
    return {key: _decode(part, tensors) for key, part in value.items()}


def _writer(folder: Path) -> Any:
    """Return a writer of torch's which keeps, in the process that finishes, where it put each part as ``places``."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.storage import WriteResult

    class Writer(dcp.FileSystemWriter):
        def finish(self, metadata: "Metadata", results: list[list[WriteResult]]) -> None:
            # What `dcp.save` returns has them too in torch 2.14, but not in 2.10.
            self.places = {part.index: part.storage_data for parts in results for part in parts}
            super().finish(metadata, results)

    return Writer(folder)


def _describe(metadata: "Metadata", places: Mapping[Any, Any], split: set[str]) -> dict[str, Any]:
    """Return name -> size, dtype, whether it was split, and its parts: where in the tensor, where in which file."""
    from torch.distributed.checkpoint.metadata import MetadataIndex

    described = {}
    entry: Any
    for name, entry in metadata.state_dict_metadata.items():
        parts = []
        for chunk in entry.chunks:
            place = places[MetadataIndex(name, chunk.offsets)]
            parts.append([list(chunk.offsets), list(chunk.sizes), place.relative_path, place.offset, place.length])
        dtype = str(entry.properties.dtype).removeprefix("torch.")
        described[name] = {"size": list(entry.size), "dtype": dtype, "split": name in split, "parts": parts}
    return described


def _dtype(entry: Mapping[str, Any]) -> torch.dtype:
    dtype = getattr(torch, entry["dtype"])
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{entry['dtype']} is no type of tensors")
    return dtype


def _reader(folder: Path, described: Mapping[str, Any]) -> Any:
    """Return a reader of torch's to which everything is told that it would unpickle."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint import metadata as parts
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    entries: dict[str, Any] = {}
    storage: dict[parts.MetadataIndex, _StorageInfo] = {}
    for name, entry in described.items():
        chunks = []
        for offsets, sizes, file, offset, length in entry["parts"]:
            if file != Path(file).name:
                raise CheckpointError(
                    f"{folder / CONTENT} names {file}, which is outside of the folder: do not trust it"
                )
            chunks.append(parts.ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
            storage[parts.MetadataIndex(name, offsets)] = _StorageInfo(file, offset, length)
        properties = parts.TensorProperties(dtype=_dtype(entry))
        entries[name] = parts.TensorStorageMetadata(properties, torch.Size(entry["size"]), chunks)
    metadata = parts.Metadata(entries, storage_data=storage)

    class Reader(dcp.FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> parts.Metadata:
            return metadata

    return Reader(folder)


def _first_cause(error: Any) -> BaseException:
    """Return what went wrong in the first of the processes in which something did."""
    cause: BaseException = min(error.failures.items())[1][0]
    return cause
