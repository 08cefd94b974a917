"""The order of samples: a pure function of seed and position, so that any position can be resumed."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, cycle, islice

import torch
from torch.utils.data import Sampler

from densevit.data.dataset import SampleKey
from densevit.errors import ConfigError
from densevit.seeding import mix_seed


class TrainSampler(Sampler[SampleKey]):
    """The endless training order: seeded permutations one after the other, dealt out to the ranks in turn.

    Args:
        size: Number of samples of the dataset.
        batch_size: Samples of one batch on one rank.
        seed: The same on every rank.
        shuffle: Draw a permutation per epoch; else the dataset's order.
        whole_batches: Begin every epoch with a new batch: the last one is filled up from the start of the
            same permutation. Otherwise a batch may hold the end of one epoch and the start of the next.
        rank: Of this process.
        world_size: Number of processes.
        repeats: Show each sample so many times in a row, augmented differently, and thus deal it to as many ranks.
            An epoch keeps its length and sees ``1 / repeats`` of the samples (repeated augmentation,
            https://arxiv.org/abs/1901.09335; 3 in DeiT, https://arxiv.org/abs/2012.12877).

    Attributes:
        step: Batch at which iteration begins. Set it before iterating, in order to resume.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        whole_batches: bool = False,
        rank: int = 0,
        world_size: int = 1,
        repeats: int = 1,
    ) -> None:
        if repeats < 1:
            raise ConfigError(f"train_dataloader.repeats must be at least 1, not {repeats}")
        self.size, self.seed, self.shuffle, self.repeats = size, seed, shuffle, repeats
        self.rank, self.world_size = rank, world_size
        self.total_batch = batch_size * world_size
        self.steps_per_epoch = -(-size // self.total_batch)
        self.epoch_length = self.steps_per_epoch * self.total_batch if whole_batches else size
        self.step = 0

    def __iter__(self) -> Iterator[SampleKey]:
        return self.start(self.step * self.total_batch)

    def start(self, position: int) -> Iterator[SampleKey]:
        """Yield this rank's keys from a position in the order of all ranks on."""
        position += self.rank
        epoch, order = -1, torch.empty(0)
        while True:
            if epoch != position // self.epoch_length:
                epoch = position // self.epoch_length
                order = self.order(epoch)
            place, repeat = divmod(position % self.epoch_length % self.size, self.repeats)
            yield SampleKey(int(order[place]), epoch, repeat)
            position += self.world_size

    def position(self, step: int) -> tuple[int, int]:
        """Return the epoch in which a batch begins, and the samples of it that all ranks have seen by then."""
        return divmod(step * self.total_batch, self.epoch_length)

    def step_at(self, epoch: int, seen: int) -> int:
        """Return the last batch that begins at a position or before it: the inverse, for batches of any size."""
        return (epoch * self.epoch_length + seen) // self.total_batch

    def __len__(self) -> int:
        """Samples of one epoch on this rank; iteration goes on beyond."""
        return self.steps_per_epoch * self.total_batch // self.world_size

    def order(self, epoch: int) -> torch.Tensor:
        """Return the indices of all samples in the order of an epoch, for all ranks."""
        if not self.shuffle:
            return torch.arange(self.size)
        generator = torch.Generator().manual_seed(mix_seed(self.seed, epoch))
        return torch.randperm(self.size, generator=generator)


class MultiScaleBatchSampler(Sampler[list[SampleKey]]):
    """Batches whose images have one size each, in pixels, drawn per batch: the smaller, the more of them.

    Training on several sizes is part of MobileViT's recipe (https://arxiv.org/abs/2110.02178). A batch
    has as many images as keep it within the pixels of ``batch_size`` images of size ``base_size``, at least one. All
    ranks have the same size at a step. The keys say the size; `densevit.data.transforms.MultiScaleCrop` heeds it.

    An epoch begins with a new batch and shows every sample once; the last batch is filled up from the start of the
    same permutation. All epochs have the same number of batches of each size, as near to equal as can be, in an order
    of their own: so the place of any step in the data is known, and can be resumed.

    Args:
        sampler: Order of the samples, and the step at which to begin; it cannot be iterated on its own afterwards.
        batch_size: Images of ``base_size`` in a batch of one rank.
        sizes: Heights and widths to draw from.
        base_size: Height and width that ``batch_size`` is for.

    Raises:
        ConfigError: A size is not positive, or there is none.
    """

    def __init__(self, sampler: TrainSampler, batch_size: int, sizes: Sequence[int], base_size: int) -> None:
        self.sampler, self.batch_size = sampler, batch_size
        if not sizes or min(*sizes, base_size) < 1:
            raise ConfigError(f"train_dataloader.multi_scale wants positive sizes, not {sizes} and {base_size}")
        self.counts = {size: max(1, batch_size * base_size**2 // size**2) for size in sizes}
        self.of_epoch: list[int] = []
        sampler.epoch_length = 0
        for size in cycle(sizes):
            self.of_epoch.append(size)
            sampler.epoch_length += self.counts[size] * sampler.world_size
            if sampler.epoch_length >= sampler.size:
                break

    def __iter__(self) -> Iterator[list[SampleKey]]:
        epoch, seen = self.position(self.sampler.step)
        done = self.sampler.step % len(self)
        keys = self.sampler.start(epoch * self.sampler.epoch_length + seen)
        while True:
            for size in self._sizes(epoch)[done:]:
                yield [key._replace(size=size) for key in islice(keys, self.counts[size])]
            epoch, done = epoch + 1, 0

    def __len__(self) -> int:
        """Batches of one epoch; iteration goes on beyond."""
        return len(self.of_epoch)

    def position(self, step: int) -> tuple[int, int]:
        """Return the epoch in which a batch begins, and the samples of it that all ranks have seen by then."""
        epoch, done = divmod(step, len(self))
        return epoch, self._ends(epoch)[done]

    def step_at(self, epoch: int, seen: int) -> int:
        """Return the last batch that begins at a position or before it: the inverse, for batches of any size."""
        return epoch * len(self) + bisect_right(self._ends(epoch), seen) - 1

    def _ends(self, epoch: int) -> list[int]:
        """Return the samples of all ranks in the first 0, 1, ... batches of an epoch."""
        counts = (self.counts[size] * self.sampler.world_size for size in self._sizes(epoch))
        return list(accumulate(counts, initial=0))

    def _sizes(self, epoch: int) -> list[int]:
        """Return the sizes of an epoch's batches in their order."""
        seed = mix_seed(self.sampler.seed, epoch, len(self))  # not that of the permutation of samples
        generator = torch.Generator().manual_seed(seed)
        return [self.of_epoch[i] for i in torch.randperm(len(self), generator=generator)]


class EvalSampler(Sampler[SampleKey]):
    """Every sample exactly once over all ranks: nothing is repeated to make the ranks even."""

    def __init__(self, size: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(rank, size, world_size)

    def __iter__(self) -> Iterator[SampleKey]:
        return (SampleKey(index) for index in self.indices)

    def __len__(self) -> int:
        return len(self.indices)
