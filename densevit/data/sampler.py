"""The order of samples: a pure function of seed and position, so that any position can be resumed."""

from collections.abc import Iterator

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
        position = self.step * self.total_batch + self.rank
        epoch, order = -1, torch.empty(0)
        while True:
            if epoch != position // self.epoch_length:
                epoch = position // self.epoch_length
                order = self._order(epoch)
            place, repeat = divmod(position % self.epoch_length % self.size, self.repeats)
            yield SampleKey(int(order[place]), epoch, repeat)
            position += self.world_size

    def __len__(self) -> int:
        """Samples of one epoch on this rank; iteration goes on beyond."""
        return self.steps_per_epoch * self.total_batch // self.world_size

    def _order(self, epoch: int) -> torch.Tensor:
        if not self.shuffle:
            return torch.arange(self.size)
        generator = torch.Generator().manual_seed(mix_seed(self.seed, epoch))
        return torch.randperm(self.size, generator=generator)


class EvalSampler(Sampler[SampleKey]):
    """Every sample exactly once over all ranks: nothing is repeated to make the ranks even."""

    def __init__(self, size: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(rank, size, world_size)

    def __iter__(self) -> Iterator[SampleKey]:
        return (SampleKey(index) for index in self.indices)

    def __len__(self) -> int:
        return len(self.indices)
