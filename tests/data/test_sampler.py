"""The order of samples is a function of seed and position."""

from itertools import islice

import pytest

from densevit.data.dataset import SampleKey
from densevit.data.sampler import EvalSampler, TrainSampler
from densevit.errors import ConfigError


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


def keys(sampler: TrainSampler, count: int) -> list[SampleKey]:
    return list(islice(sampler, count))


def test_repeats_show_fewer_samples_each_several_times_with_its_own_augmentation() -> None:
    epoch = keys(TrainSampler(12, 4, seed=0, repeats=3), 12)
    shown = {key.index for key in epoch}
    assert len(shown) == 4
    assert sorted(epoch) == [SampleKey(index, 0, repeat) for index in sorted(shown) for repeat in range(3)]
    later = {key.index for key in keys(TrainSampler(12, 4, seed=0, repeats=3), 12 * 20)}
    assert later == set(range(12))


@pytest.mark.parametrize("world_size", [3, 4])
def test_repeats_of_a_sample_go_to_different_ranks(world_size: int) -> None:
    samplers = [TrainSampler(24, 2, 0, rank=r, world_size=world_size, repeats=3) for r in range(world_size)]
    ranks: dict[tuple[int, int], set[int]] = {}
    for rank, sampler in enumerate(samplers):
        for key in keys(sampler, 24 // world_size):
            ranks.setdefault(key[:2], set()).add(rank)
    assert {len(r) for r in ranks.values()} == {3}


@pytest.mark.parametrize("whole_batches", [False, True])
@pytest.mark.parametrize("world_size", [1, 2])
def test_repeats_are_resumed_at_any_step(whole_batches: bool, world_size: int) -> None:
    def sampler() -> TrainSampler:
        return TrainSampler(10, 4, 1, whole_batches=whole_batches, rank=0, world_size=world_size, repeats=3)

    straight = keys(sampler(), 60)
    for step in range(10):
        resumed = sampler()
        resumed.step = step
        assert keys(resumed, 20) == straight[4 * step :][:20]


def test_an_epoch_that_is_no_multiple_of_the_repeats_keeps_its_length() -> None:
    epochs = [key.epoch for key in keys(TrainSampler(10, 5, seed=0, repeats=3), 30)]
    assert epochs == [0] * 10 + [1] * 10 + [2] * 10


def test_no_repeats_at_all_are_refused() -> None:
    with pytest.raises(ConfigError, match="repeats must be at least 1"):
        TrainSampler(10, 4, seed=0, repeats=0)
