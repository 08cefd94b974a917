"""The order of samples is a function of seed and position."""

from itertools import islice

import pytest

from densevit.data.sampler import EvalSampler, TrainSampler


def indices(sampler: TrainSampler, count: int) -> list[int]:
    return [key.index for key in islice(sampler, count)]


def test_every_epoch_shows_every_sample_once_in_another_order() -> None:
    order = indices(TrainSampler(10, batch_size=4, seed=0), 20)
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert order[:10] != order[10:]


@pytest.mark.parametrize("whole_batches", [False, True])
def test_starting_at_a_step_equals_going_there(whole_batches: bool) -> None:
    straight = list(islice(TrainSampler(10, 4, seed=1, whole_batches=whole_batches), 60))
    resumed = TrainSampler(10, 4, seed=1, whole_batches=whole_batches)
    resumed.step = 7
    assert list(islice(resumed, 32)) == straight[28:]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_ranks_share_one_order(world_size: int) -> None:
    one = indices(TrainSampler(10, 6, seed=2), 60)
    ranks = [
        indices(TrainSampler(10, 6 // world_size, 2, rank=r, world_size=world_size), 60 // world_size)
        for r in range(world_size)
    ]
    dealt = [index for group in zip(*ranks, strict=True) for index in group]
    assert dealt == one


def test_whole_batches_fill_the_last_one_from_the_same_epoch() -> None:
    keys = list(islice(TrainSampler(10, 4, seed=3, whole_batches=True), 12))
    assert {key.epoch for key in keys} == {0}
    assert [k.index for k in keys[10:]] == [k.index for k in keys[:2]]


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_evaluation_sees_each_sample_exactly_once(world_size: int) -> None:
    seen = [key.index for rank in range(world_size) for key in EvalSampler(5, rank, world_size)]
    assert sorted(seen) == list(range(5))
