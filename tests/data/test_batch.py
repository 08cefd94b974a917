"""A batch from a worker is the batch that was collated there, in few pieces."""

from copy import copy
from dataclasses import fields
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.tv_tensors import Image, Mask

from densevit.data.batch import Batch, collate_batch
from densevit.structures import ClassTarget, Meta, Sample, SegTarget


def make_sample(index: int, task: str) -> Sample | None:
    """Return a sample; of "sizes" each has its own."""
    size = (8, 8 + index) if task == "sizes" else (8, 12)
    generator = torch.Generator().manual_seed(index)
    image = Image(torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator))
    mask = SegTarget(Mask(image[0] // 100))
    label = ClassTarget(torch.tensor(index))
    targets: dict[str, Any] = {
        "labels": label,
        "soft": ClassTarget(torch.rand(4, generator=generator)),
        "masks": mask,
        "sizes": mask,
        "none": None,
        "some": label if index else None,
        "both": label if index else mask,
        "bad": label,
    }
    return None if task == "bad" and index != 1 else Sample(image, targets[task], Meta(f"{index}.png", size, size))


def from_worker(task: str, workers: int = 1) -> Batch:
    make: Any = list(map(partial(make_sample, task=task), range(3)))
    (batch,) = DataLoader(make, batch_size=3, num_workers=workers, collate_fn=collate_batch)
    return batch


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype
    else:
        assert one == other


@pytest.mark.parametrize("task", ["labels", "soft", "masks", "sizes", "none", "some", "both", "bad"])
def test_a_batch_from_a_worker_equals_one_made_here(task: str) -> None:
    here, sent = from_worker(task, workers=0), from_worker(task)
    assert type(sent) is Batch
    assert len(sent) == len(here) == (1 if task == "bad" else 3)
    for one, other in zip(here, sent, strict=True):
        assert one.meta == other.meta
        assert_same(one.image, other.image)
        assert type(one.target) is type(other.target)
        for field in fields(one.target) if one.target is not None else ():
            assert_same(getattr(one.target, field.name), getattr(other.target, field.name))


def storages(tensors: list[Tensor]) -> int:
    return len({tensor.untyped_storage().data_ptr() for tensor in tensors})


def test_tensors_of_one_shape_are_sent_together() -> None:
    batch = from_worker("masks")
    assert storages([sample.image for sample in batch]) == storages([sample.target.mask for sample in batch]) == 1
    assert storages([sample.image for sample in from_worker("sizes")]) == 3


def test_a_copy_has_the_same_samples() -> None:
    batch = from_worker("masks")
    assert all(one is other for one, other in zip(batch, copy(batch), strict=True))


def test_a_batch_may_be_empty() -> None:
    assert collate_batch([None, None]) == []
    (batch,) = DataLoader([None, None], batch_size=2, num_workers=1, collate_fn=collate_batch)  # type: ignore[arg-type]
    assert batch == []
