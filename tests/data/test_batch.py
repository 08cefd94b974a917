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
from densevit.structures import BoxTarget, ClassTarget, Meta, Sample, SegTarget

TASKS = ("labels", "soft", "masks", "sizes", "boxes", "no boxes", "objects", "objects of sizes")


def make_boxes(count: int, masks: bool, size: tuple[int, int]) -> BoxTarget:
    """Return a target with ``count`` objects."""
    stack = Mask(torch.arange(count, dtype=torch.uint8)[:, None, None].expand(count, *size).contiguous())
    boxes, numbers = torch.arange(4.0 * count).view(count, 4), torch.arange(count)
    return BoxTarget(boxes, numbers, numbers > 1, numbers.float(), stack if masks else None, torch.tensor(count))


def make_sample(index: int, task: str) -> Sample | None:
    """Return a sample; of "sizes" each has its own."""
    size = (8, 8 + index) if task in ("sizes", "objects of sizes") else (8, 12)
    generator = torch.Generator().manual_seed(index)
    image = Image(torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator))
    mask = SegTarget(Mask(image[0] // 100))
    label = ClassTarget(torch.tensor(index))
    targets: dict[str, Any] = {
        "labels": label,
        "soft": ClassTarget(torch.rand(4, generator=generator)),
        "masks": mask,
        "sizes": mask,
        "boxes": make_boxes(2 * index, False, size),
        "no boxes": make_boxes(0, True, size),
        "objects": make_boxes(3 - index, True, size),
        "objects of sizes": make_boxes(index, True, size),
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


@pytest.mark.parametrize("task", [*TASKS, "none", "some", "both", "bad"])
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


@pytest.mark.parametrize(("task", "masks"), [("objects", 1), ("objects of sizes", 3)])
def test_tensors_that_differ_in_length_only_are_sent_together(task: str, masks: int) -> None:
    targets = [sample.target for sample in from_worker(task)]
    for name in ("boxes", "labels", "crowd", "area", "image_id"):
        assert storages([tensor for t in targets if (tensor := getattr(t, name)).numel()]) == 1
    assert storages([target.masks for target in targets]) <= masks


def test_a_copy_has_the_same_samples() -> None:
    batch = from_worker("masks")
    assert all(one is other for one, other in zip(batch, copy(batch), strict=True))


def test_a_batch_may_be_empty() -> None:
    assert collate_batch([None, None]) == []
    (batch,) = DataLoader([None, None], batch_size=2, num_workers=1, collate_fn=collate_batch)  # type: ignore[arg-type]
    assert batch == []
