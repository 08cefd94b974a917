"""Batches that come from a worker in few pieces."""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.tv_tensors import Image, Mask

from densevit.data.dataset import collate
from densevit.structures import Meta, Sample

STACKABLE = (Tensor, Image, Mask)  # with no data but their values


class Batch(list[Sample]):
    """Samples, which a worker sends as one tensor per field where their shapes are equal.

    A tensor sent by itself takes a file descriptor and, in both processes, longer than decoding a small image.
    """

    def __reduce__(self) -> tuple[Callable[..., "Batch"], tuple[Any, ...]]:
        targets = [sample.target for sample in self]
        kinds = {type(target) for target in targets}
        kind = kinds.pop() if len(kinds) == 1 and is_dataclass(targets[0]) else None
        if kind is not None:
            targets = [_pack([getattr(target, field.name) for target in targets]) for field in fields(kind)]
        images = _pack([sample.image for sample in self])
        return _unpack_batch, (images, kind, targets, [sample.meta for sample in self])

    def __copy__(self) -> "Batch":  # by the thread that pins memory: else by packing
        return Batch(self)


def collate_batch(samples: Sequence[Sample | None]) -> Batch:
    """Return the samples of a batch without those left out as bad; there may be none."""
    return Batch(collate(samples))


def _pack(values: list[Any]) -> tuple[type | None, Any]:
    """Return (type, one tensor) of tensors of one kind, else (None, the values)."""
    kinds = {(type(v), v.shape, v.dtype) if type(v) in STACKABLE else None for v in values}
    if len(kinds) != 1 or None in kinds:
        return None, values
    return type(values[0]), torch.stack([v.as_subclass(Tensor) for v in values])


def _unpack(kind: type | None, packed: Any) -> list[Any]:
    return packed if kind is None else [x.as_subclass(kind) for x in packed.unbind()]


def _unpack_batch(images: Any, kind: Any, targets: list[Any], metas: list[Meta]) -> Batch:
    if kind is not None:
        targets = [kind(*values) for values in zip(*(_unpack(*field) for field in targets), strict=True)]
    return Batch(map(Sample, _unpack(*images), targets, metas))
