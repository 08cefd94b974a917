"""Resizing of biases of attention, learnt per pair of cells, to other grids."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from densevit.layers import resize_bias

OLD = ((6, 10), (4, 5))
NEW = ((9, 8), (6, 4))
STEP = (6 / 9, 10 / 8)


def by_two_interpolations(bias: Tensor) -> Tensor:
    x = F.interpolate(bias.unflatten(2, OLD[1]), NEW[1], mode="bicubic").flatten(2).transpose(1, 2)
    return F.interpolate(x.unflatten(2, OLD[0]), NEW[0], mode="bicubic").flatten(2).transpose(1, 2)


def grids(space: tuple[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the grids of an image: queries of one pixel, keys of two by two, the last of which may be half outside."""
    return space, tuple(-(-n // 2) for n in space)


def gaussians(space: tuple[int, int]) -> Tensor:
    """Return, for two heads, a bias that falls with the distance from a query to a key above it and to its right."""
    queries, keys = (
        torch.cartesian_prod(*((torch.arange(cells) + 0.5) * size / n for cells, n in zip(grid, space, strict=True)))
        for grid, size in zip(grids(space), (1, 2), strict=True)
    )
    up, right = (queries[:, None] - keys).unbind(-1)
    return torch.stack([(-4 * (up - 0.2) ** 2 - right**2).exp(), (-2 * (right + 0.3) ** 2).exp()])


def test_the_training_size_returns_the_parameter_itself() -> None:
    bias = torch.randn(2, 60, 20)
    assert resize_bias(bias, OLD, OLD, (1, 1)) is bias


def test_other_sizes_equal_bicubic_interpolation_over_both_grids() -> None:
    bias = torch.randn(2, 60, 20, dtype=torch.float64)
    torch.testing.assert_close(resize_bias(bias, OLD, NEW, STEP), by_two_interpolations(bias), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("space", [(20, 32), (20, 16), (17, 23), (13, 16), (11, 31)])
def test_a_bias_keeps_its_meaning_where_the_last_cells_are_padding_too(space: tuple[int, int]) -> None:
    step = [before / after for before, after in zip((10, 16), space, strict=True)]
    resized = resize_bias(gaussians((10, 16)), grids((10, 16)), grids(space), step)
    assert (resized - gaussians(space)).abs().mean() < 0.02


def test_every_entry_gets_a_gradient() -> None:
    bias = torch.randn(2, 60, 20, requires_grad=True)
    resize_bias(bias, OLD, NEW, STEP).square().sum().backward()
    assert bias.grad is not None
    assert bias.grad.all()
