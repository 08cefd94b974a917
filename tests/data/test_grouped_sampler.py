"""Batches of one group each: their order is a function of seed and step."""

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import Tensor
from torchvision.tv_tensors import Image, Mask

from densevit.data.dataset import DenseDataset, SampleKey
from densevit.data.grouped_sampler import GroupedBatchSampler
from densevit.data.sampler import TrainSampler
from densevit.engine.config import check_config
from densevit.engine.loader import build_loader
from densevit.errors import ConfigError
from densevit.registry import DATASETS
from densevit.structures import SegTarget

GROUPS = np.array([1, 1, 0, 1, 0, 1, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 0])  # 16 of one, 7 of the other


def batches(step: int = 0, rank: int = 0, world_size: int = 1, groups: np.ndarray = GROUPS) -> GroupedBatchSampler:
    order = TrainSampler(len(groups), 2, seed=1, rank=rank, world_size=world_size)
    order.step = step
    return GroupedBatchSampler(order, 2, groups)


def take(sampler: GroupedBatchSampler, count: int) -> list[list[SampleKey]]:
    return list(islice(sampler, count))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_all_ranks_have_batches_of_the_same_group_at_a_step(world_size: int) -> None:
    count = 3 * len(batches(world_size=world_size))
    ranks = [take(batches(rank=rank, world_size=world_size), count) for rank in range(world_size)]
    for step in zip(*ranks, strict=True):
        assert [len(batch) for batch in step] == [2] * world_size
        assert len({GROUPS[key.index] for batch in step for key in batch}) == 1


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_epoch_shows_every_sample_in_equally_many_batches(world_size: int) -> None:
    total = 2 * world_size
    steps = len(batches(world_size=world_size))
    assert steps == -(-16 // total) + -(-7 // total)
    epochs = []
    for epoch in range(3):
        ranks = [take(batches(epoch * steps, rank, world_size), steps) for rank in range(world_size)]
        keys = [key for rank in ranks for batch in rank for key in batch]
        assert {key.epoch for key in keys} == {epoch}
        counts = Counter(key.index for key in keys)
        assert set(counts) == set(range(23))
        assert max(counts.values()) <= 2
        epochs.append(keys)
    assert [k.index for k in epochs[0]] != [k.index for k in epochs[1]]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_starting_at_any_step_equals_going_there(world_size: int) -> None:
    count = 3 * len(batches(world_size=world_size)) + 1
    straight = take(batches(0, world_size - 1, world_size), count)
    for step in range(count):
        assert take(batches(step, world_size - 1, world_size), count - step) == straight[step:]


def test_starting_late_draws_no_earlier_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    order = TrainSampler.order
    monkeypatch.setattr(TrainSampler, "order", lambda self, epoch: drawn.append(epoch) or order(self, epoch))
    take(batches(1000 * len(batches()) + 3), 1)
    assert drawn == [1000]


def test_batches_come_in_the_order_in_which_they_fill_and_incomplete_ones_last() -> None:
    sampler = batches()
    order = sampler.sampler.order(0).tolist()
    place = {index: i for i, index in enumerate(order)}
    epoch = [[key.index for key in batch] for batch in take(sampler, len(sampler))]
    ends = [max(place[i] for i in batch) for batch in epoch[:-1]]
    assert ends == sorted(ends)
    assert all(batch == sorted(batch, key=place.__getitem__) for batch in epoch[:-1])
    few = [i for i in order if GROUPS[i] == 0]
    assert epoch[-1] == [few[-1], few[0]]  # 7 samples by twos: filled up from the start of the group


def test_a_group_smaller_than_a_batch_is_repeated() -> None:
    groups = np.array([0, 0, 0, 1, 0])
    epoch = take(batches(groups=groups, world_size=2), 2)
    assert [key.index for key in epoch[-1]] == [3, 3]


def test_without_other_groups_the_order_is_that_of_the_sampler() -> None:
    groups = np.zeros(8)
    plain = [key.index for key in islice(TrainSampler(8, 2, seed=1), 16)]
    assert [key.index for batch in take(batches(groups=groups), 8) for key in batch] == plain


def test_repeats_are_refused() -> None:
    with pytest.raises(ConfigError, match="repeats and group_by_aspect"):
        GroupedBatchSampler(TrainSampler(23, 2, seed=0, repeats=2), 2, GROUPS)


@DATASETS.register_module(force=True)
class WideAndHigh(DenseDataset):
    """Pictures whose index says whether they are wide."""

    def __init__(self, grouped: bool = True) -> None:
        self.transforms = lambda *inputs: inputs
        if grouped:
            self.groups = GROUPS

    def __len__(self) -> int:
        return len(GROUPS)

    def read(self, index: int) -> tuple[Tensor, SegTarget, str]:
        size = (4, 6) if GROUPS[index] else (6, 4)
        return Image(torch.zeros(3, *size, dtype=torch.uint8)), SegTarget(Mask(torch.zeros(size))), "a.jpg"

    def path(self, index: int) -> str:
        return "a.jpg"

    def check(self, mode: str) -> None: ...


def loader(grouped: bool = True, workers: int = 0, **options: object) -> dict[str, object]:
    dataset = dict(type="WideAndHigh", grouped=grouped)
    return dict(dataset=dataset, batch_size=2, num_workers=workers, group_by_aspect=True, **options)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_gives_batches_of_images_of_one_aspect(tmp_path: Path, workers: int) -> None:
    built = build_loader(loader(workers=workers), 0, tmp_path, training=True, whole_batches=True)
    assert len(built) == 8 + 4
    for batch in islice(built, 12):
        assert len({tuple(sample.image.shape) for sample in batch}) == 1


def test_a_dataset_without_aspects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="WideAndHigh does not know the aspects"):
        build_loader(loader(grouped=False), 0, tmp_path, training=True)


@pytest.mark.parametrize("other", [{"repeats": 2}, {"multi_scale": {"sizes": [32], "base_size": 32}}])
def test_grouping_excludes_what_else_makes_batches(other: dict[str, object]) -> None:
    check_config(Config(dict(train_dataloader=loader())))
    with pytest.raises(ConfigError, match="group_by_aspect excludes multi_scale and repeats"):
        check_config(Config(dict(train_dataloader=loader(**other))))
    with pytest.raises(ConfigError, match="takes no 'group_by_aspect'"):
        check_config(Config(dict(val_dataloader=loader())))
