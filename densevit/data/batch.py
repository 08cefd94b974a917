"""Batches that come from a worker in few pieces."""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.tv_tensors import Image, Mask, Video

from densevit.data.dataset import collate
from densevit.structures import Meta, Sample

STACKABLE = (Tensor, Image, Mask, Video)  # with no data but their values


class Batch(list[Sample]):
    """Samples, which a worker sends as one tensor per field where their shapes are equal but for the first size.

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


class Packed(NamedTuple):
    """Tensors in one: stacked, or where ``lengths`` says how long each is, one after the other."""

    kind: type
    values: Tensor
    lengths: list[int] | None


def _pack(values: list[Any]) -> Packed | list[Any]:
    """Return tensors of one kind as one tensor if they differ in length at most; else the values as they are."""
    kinds = {(type(v), v.dtype, v.ndim, v.shape[1:]) if type(v) in STACKABLE else None for v in values}
    if len(kinds) != 1 or None in kinds:
        return values
    plain = [v.as_subclass(Tensor) for v in values]
    if len({v.shape for v in plain}) == 1:
        return Packed(type(values[0]), torch.stack(plain), None)
    return Packed(type(values[0]), torch.cat(plain), [len(v) for v in plain])


def _unpack(packed: Packed | list[Any]) -> Sequence[Any]:
    if not isinstance(packed, Packed):
        return packed
    parts = packed.values.unbind() if packed.lengths is None else packed.values.split(packed.lengths)
    return [x.as_subclass(packed.kind) for x in parts]


def _unpack_batch(images: Any, kind: Any, targets: list[Any], metas: list[Meta]) -> Batch:
    if kind is not None:
        targets = [kind(*values) for values in zip(*map(_unpack, targets), strict=True)]
    return Batch(map(Sample, _unpack(images), targets, metas))
