"""Batches of several image sizes: their order is a function of seed and step, as that of the samples is."""

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import Image, Mask

from densevit.data.dataset import DenseDataset, SampleKey
from densevit.data.resize import ImageSize
from densevit.data.sampler import MultiScaleBatchSampler, TrainSampler
from densevit.data.transforms import build_transforms
from densevit.engine.config import check_config
from densevit.engine.loader import build_loader
from densevit.engine.runner import Runner
from densevit.errors import ConfigError
from densevit.structures import SegTarget

SIZES = (160, 192, 256, 288, 320)


def batches(
    samples: int = 1000, batch_size: int = 8, step: int = 0, rank: int = 0, world_size: int = 1, repeats: int = 1
) -> MultiScaleBatchSampler:
    order = TrainSampler(samples, batch_size, seed=1, rank=rank, world_size=world_size, repeats=repeats)
    order.step = step
    return MultiScaleBatchSampler(order, batch_size, SIZES, base_size=256)


def take(sampler: MultiScaleBatchSampler, count: int) -> list[list[SampleKey]]:
    return list(islice(sampler, count))


def test_images_of_a_batch_have_one_size_and_batches_about_the_same_pixels() -> None:
    budget = 128 * 256**2
    for batch in take(batches(100_000, batch_size=128), 50):
        (size,) = {key.size for key in batch}
        assert budget - size**2 < len(batch) * size**2 <= budget
    assert {len(batch): batch[0].size for batch in take(batches(100_000, batch_size=128), 50)} == {
        327: 160,
        227: 192,
        128: 256,
        101: 288,
        81: 320,
    }


def test_a_batch_has_at_least_one_image() -> None:
    assert {len(batch) for batch in take(batches(batch_size=1), 20)} == {1, 2}


def test_every_epoch_shows_every_sample_and_few_twice() -> None:
    sampler = batches()
    for epoch in range(3):
        keys = [key for batch in take(batches(step=epoch * len(sampler)), len(sampler)) for key in batch]
        assert {key.epoch for key in keys} == {epoch}
        assert {key.index for key in keys} == set(range(1000))
        assert len(keys) - 1000 < 20  # the largest batch
        assert [key.index for key in keys[1000:]] == [key.index for key in keys[: len(keys) - 1000]]


def test_epochs_have_equally_many_batches_of_each_size_in_another_order() -> None:
    steps = len(batches())
    epochs = [[batch[0].size for batch in take(batches(step=epoch * steps), steps)] for epoch in range(2)]
    assert Counter(epochs[0]) == Counter(epochs[1])
    assert max(Counter(epochs[0]).values()) - min(Counter(epochs[0]).values()) <= 1
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("world_size", [1, 3])
def test_starting_at_any_step_equals_going_there(world_size: int, repeats: int) -> None:
    def sampler(step: int) -> MultiScaleBatchSampler:
        return batches(200, 4, step, rank=world_size - 1, world_size=world_size, repeats=repeats)

    count = 3 * len(sampler(0)) + 1
    straight = take(sampler(0), count)
    for step in range(count):
        assert take(sampler(step), count - step) == straight[step:]


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_agree_on_the_sizes_and_share_the_samples(world_size: int) -> None:
    count = 2 * len(batches(1000, 8, world_size=world_size))
    ranks = [take(batches(1000, 8, rank=rank, world_size=world_size), count) for rank in range(world_size)]
    for step in zip(*ranks, strict=True):
        assert len({(len(batch), batch[0].size) for batch in step}) == 1
        assert len({key.index for batch in step for key in batch}) >= sum(map(len, step)) - 1
    first = [key.index for rank in ranks for batch in rank[: count // 2] for key in batch]
    assert set(first) == set(range(1000))
    assert len(first) - 1000 < 20 * world_size


@pytest.mark.parametrize("sizes", [(), (0, 256), (-32,)])
def test_impossible_sizes_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="positive sizes"):
        MultiScaleBatchSampler(TrainSampler(10, 4, seed=0), 4, sizes, base_size=256)


def crop(size: int, wanted: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the image and the mask that a crop gives, from the same draw."""
    torch.manual_seed(0)
    pixels = torch.arange(50 * 60, dtype=torch.float32).view(1, 50, 60)
    fields = {"mask": Mask(pixels[0].to(torch.int32)), **({"size": ImageSize(wanted)} if wanted else {})}
    transforms = [{"type": "RandomHorizontalFlip"}, {"type": "MultiScaleCrop", "size": size, "scale": (0.5, 1)}]
    image, fields = build_transforms(transforms)(Image(pixels), fields)
    return image, fields["mask"]


def test_a_crop_has_the_size_of_the_batch_or_its_own() -> None:
    for size, wanted in ((32, None), (24, 32)):
        image, mask = crop(size, wanted)
        assert image.shape == (1, 32, 32)
        assert mask.shape == (32, 32)
    for a, b in zip(crop(32), crop(24, 32), strict=True):
        assert torch.equal(a, b)


def test_a_crop_is_torchvision_s() -> None:
    torch.manual_seed(0)
    image = Image(torch.rand(3, 50, 60))
    torch.manual_seed(1)
    expected = v2.RandomResizedCrop(32, interpolation=v2.InterpolationMode.BICUBIC)(image)
    torch.manual_seed(1)
    ours = build_transforms([{"type": "MultiScaleCrop", "size": 32, "interpolation": "bicubic"}])(image)
    assert torch.equal(ours, expected)


class Pictures(DenseDataset):
    """A picture of which nothing is read."""

    def __init__(self, transform: str) -> None:
        self.transforms = build_transforms([{"type": transform, "size": 32}])

    def __len__(self) -> int:
        return 9

    def read(self, index: int) -> tuple[Tensor, SegTarget, str]:
        return Image(torch.zeros(3, 50, 60, dtype=torch.uint8)), SegTarget(Mask(torch.zeros(50, 60))), "a.jpg"

    def path(self, index: int) -> str:
        return "a.jpg"

    def check(self, mode: str) -> None: ...


def test_a_dataset_gives_images_of_the_size_of_the_key_and_refuses_transforms_that_do_not() -> None:
    sample = Pictures("MultiScaleCrop")[SampleKey(3, size=48)]
    assert sample is not None
    assert sample.image.shape == (3, 48, 48)
    assert sample.target.mask.shape == (48, 48)
    with pytest.raises(ConfigError, match=r"48 x 48 pixels, but .* \(32, 32\): use MultiScaleCrop"):
        Pictures("RandomResizedCrop")[SampleKey(3, size=48)]


@pytest.fixture
def multi_scale(config: Config) -> Config:
    """Return the config of whole-run tests with epochs of 3 steps and images of 32, 48 and 64 pixels."""
    loader = config.train_dataloader
    loader.dataset.transforms = [{"type": "MultiScaleCrop", "size": 64}, {"type": "RandomHorizontalFlip"}]
    loader.batch_size, loader.multi_scale = 2, {"sizes": (32, 64, 64), "base_size": 64}
    return config


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_gives_batches_of_each_size(multi_scale: Config, tmp_path: Path, workers: int) -> None:
    multi_scale.train_dataloader.num_workers = workers
    loader = build_loader(multi_scale.train_dataloader, 0, tmp_path, training=True)
    shapes = [(len(batch), *batch[0].image.shape[1:]) for batch in islice(loader, len(loader))]
    assert sorted(shapes) == [(2, 64, 64), (2, 64, 64), (8, 32, 32)]


def run(cfg: Config, work_dir: Path, resume: bool = False) -> dict[str, Tensor]:
    cfg = cfg.copy()
    cfg.work_dir, cfg.resume = str(work_dir), resume
    runner = Runner.from_cfg(cfg)
    runner.train()
    state: dict[str, Tensor] = runner.model.state_dict()
    return state


@pytest.mark.parametrize("by_epoch", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    multi_scale: Config, tmp_path: Path, by_epoch: bool
) -> None:
    check_config(multi_scale)
    multi_scale.default_hooks.checkpoint.max_keep_ckpts = 9
    if by_epoch:
        multi_scale.train_cfg = {"by_epoch": True, "max_epochs": 3, "val_interval": 3}
    straight = run(multi_scale, tmp_path / "run")
    for path in (tmp_path / "run").glob("*.pth"):
        if path.name != "iter_4.pth":  # amid an epoch
            path.unlink()
    resumed = run(multi_scale, tmp_path / "run", resume=True)
    logs = "".join(p.read_text() for p in (tmp_path / "run").glob("*/*.log"))
    assert "iter_4.pth at step 4" in logs
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)


@pytest.mark.parametrize("change", [{"sizes": (32,)}, {"sizes": (32,), "base": 64}])
def test_wrong_keys_are_refused(multi_scale: Config, change: dict[str, object]) -> None:
    multi_scale.train_dataloader.multi_scale = change
    with pytest.raises(ConfigError, match="multi_scale wants sizes and base_size"):
        check_config(multi_scale)
