"""Windows over volumes: MONAI's numbers, in memory that does not grow with the length."""

from typing import Any

import pytest
import torch
from monai.inferers import sliding_window_inference
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from densevit.errors import ConfigError
from densevit.tasks.medical import SlidingVolume


def network(classes: int = 5) -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv3d(2, classes, 3, padding=1).requires_grad_(False)


def volumes(*size: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 2, *size)


@pytest.mark.parametrize(
    ("size", "window", "overlap"),
    [
        ((20, 31, 17), (8, 8, 8), 0.5),
        ((20, 14, 40), (8, 16, 12), 0.25),
        ((40, 9, 9), (8, 9, 10), 0.6),
        ((5, 6, 7), (8, 8, 8), 0.5),
        ((11, 10, 12), (8, 8, 8), 0.9),
        ((16, 24, 16), (8, 8, 8), 0.0),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_logits_are_those_of_monai(
    size: tuple[int, ...], window: tuple[int, ...], overlap: float, batch_size: int
) -> None:
    net, x = network(), volumes(*size)
    expected = sliding_window_inference(x, window, 1, net, overlap, mode="gaussian")
    options = {"overlap": overlap, "batch_size": batch_size}
    logits = SlidingVolume(window, **options, logits=True)(net, x)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    labels = SlidingVolume(window, **options)(net, x)
    assert labels.dtype == torch.uint8
    first, second = expected.topk(2, dim=1).values.unbind(1)
    clear = first - second > 1e-4
    assert torch.equal(labels[clear], expected.argmax(1).to(torch.uint8)[clear])


def test_a_volume_does_not_depend_on_its_neighbour_nor_on_the_batch() -> None:
    net, x = network(), volumes(12, 20, 9)
    both = SlidingVolume((8, 8, 8), logits=True)(net, x)
    assert torch.equal(SlidingVolume((8, 8, 8), logits=True)(net, x[1:]), both[1:])
    torch.testing.assert_close(SlidingVolume((8, 8, 8), batch_size=7, logits=True)(net, x), both)


def test_mirror_images_are_averaged_over_all_combinations_of_the_axes() -> None:
    net, x = network(), volumes(8, 8, 8)
    mirrored = SlidingVolume((8, 8, 8), flips=(0, 2), logits=True)(net, x)
    flips = ([], [2], [4], [2, 4])
    expected = torch.stack([net(x.flip(axes)).flip(axes) for axes in flips]).mean(dim=0)
    torch.testing.assert_close(mirrored, expected, rtol=1e-5, atol=1e-5)


def test_batches_of_windows_are_full_whatever_the_rows_they_are_in() -> None:
    counts, net = [], network()

    def counting(x: Tensor) -> Tensor:
        counts.append(len(x))
        return net(x)

    SlidingVolume((8, 8, 8), batch_size=4)(counting, volumes(20, 12, 12)[:1])  # 4 x 2 x 2 windows, then 3 x 3 x 4
    assert counts == [4] * 4
    counts.clear()
    SlidingVolume((8, 8, 8), overlap=0.3, batch_size=4)(counting, volumes(20, 17, 12)[:1])
    assert counts == [4] * (sum(counts) // 4) + [sum(counts) % 4] * (sum(counts) % 4 > 0)


class Largest(TorchDispatchMode):
    """Records the number of elements of the largest float tensor that is made, views of the input left out."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.numel, self.storage = 0, x.untyped_storage().data_ptr()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.dtype.is_floating_point:
            self.numel = max(self.numel, made.numel() * (made.untyped_storage().data_ptr() != self.storage))
        return made


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_logits_are_held_of_one_window_s_length_only(axis: int) -> None:
    size, classes = [12, 12, 12], 6
    size[axis] = 96
    net, x = network(classes), volumes(*size)[:1]
    with Largest(x) as largest:
        labels = SlidingVolume((8, 8, 8), batch_size=2)(net, x)
    assert labels.shape == (1, *size)
    assert largest.numel == classes * 8 * 12 * 12  # and not 96 * 12 * 12


def test_bf16_networks_are_blended_in_fp32() -> None:
    net, x = network(), volumes(12, 12, 12)
    low = SlidingVolume((8, 8, 8), logits=True)(lambda window: net(window).bfloat16(), x)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, SlidingVolume((8, 8, 8), logits=True)(net, x), rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    "options",
    [{"window": (8, 8)}, {"window": (8, 0, 8)}, {"overlap": 1.0}, {"batch_size": 0}, {"flips": (0, 3)}],
)
def test_numbers_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="SlidingVolume"):
        SlidingVolume(**options)


@pytest.mark.parametrize("outputs", [torch.zeros(1, 5), torch.zeros(1, 5, 2, 2, 2)])
def test_heads_that_give_no_map_of_the_volume_are_refused(outputs: Tensor) -> None:
    with pytest.raises(ConfigError, match=r"classify the voxels of volumes: leave out model\.inference"):
        SlidingVolume((8, 8, 8))(lambda _: outputs, volumes(8, 8, 8)[:1])
