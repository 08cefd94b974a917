"""Batches of samples of one kind each, e.g. of wide or of high images: they are padded less."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from densevit.data.dataset import SampleKey
from densevit.data.sampler import TrainSampler
from densevit.errors import ConfigError


class GroupedBatchSampler(Sampler[list[SampleKey]]):
    """Batches, over all ranks together, of samples of one group.

    An epoch goes through the sampler's permutation and deals each sample out to the batch of its group; batches come in
    the order in which they fill. Those that stay incomplete come last, filled up from the start of the same group. So
    every epoch has the same number of batches, shows every sample, and is a function of the seed and its number.

    Args:
        sampler: Order of the samples, and the step at which to begin; it cannot be iterated on its own afterwards.
        batch_size: Of one rank.
        groups: ``(samples,)``, number of each sample's group.

    Raises:
        ConfigError: The sampler repeats samples.
    """

    def __init__(self, sampler: TrainSampler, batch_size: int, groups: np.ndarray) -> None:
        if sampler.repeats > 1:
            raise ConfigError("train_dataloader: repeats and group_by_aspect exclude each other, leave one out")
        self.sampler, self.batch_size, self.groups = sampler, batch_size, np.asarray(groups)
        _, counts = np.unique(self.groups, return_counts=True)
        self._length = int((-(-counts // sampler.total_batch)).sum())

    def __iter__(self) -> Iterator[list[SampleKey]]:
        epoch, done = divmod(self.sampler.step, len(self))
        ranks = slice(self.sampler.rank, None, self.sampler.world_size)
        while True:
            for batch in self._batches(epoch)[done:]:
                yield [SampleKey(index, epoch) for index in batch[ranks].tolist()]
            epoch, done = epoch + 1, 0

    def __len__(self) -> int:
        """Batches of one epoch; iteration goes on beyond."""
        return self._length

    def position(self, step: int) -> tuple[int, int]:
        """Return the epoch in which a batch begins, and the samples of it that all ranks have seen by then."""
        epoch, done = divmod(step, len(self))
        return epoch, done * self.sampler.total_batch

    def step_at(self, epoch: int, seen: int) -> int:
        """Return the last batch before which no more samples were seen, for batches of any size.

        With another size these are not the same samples: they are dealt out to the groups anew.
        """
        return epoch * len(self) + min(seen // self.sampler.total_batch, len(self))

    def _batches(self, epoch: int) -> np.ndarray:
        """Return the indices of an epoch's samples, ``(batches, samples of all ranks)``."""
        order = self.sampler.order(epoch).numpy()
        total = self.sampler.total_batch
        batches, filled = [], []
        for group in np.unique(self.groups):
            places = np.flatnonzero(self.groups[order] == group)
            count = -(-len(places) // total)
            batches.append(order[np.resize(places, (count, total))])  # repeats from the start
            ends = places[total - 1 :: total]
            filled += [*ends, *[len(order)] * (count - len(ends))]
        return np.concatenate(batches)[np.argsort(filled, kind="stable")]
