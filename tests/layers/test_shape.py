"""Moves between tokens and maps."""

import pytest
import torch
from torch import nn

from densevit.layers import crop, pad_stack, pointwise, resize, to_map, to_tokens


@pytest.mark.parametrize("grid", [(6,), (2, 3), (2, 3, 4)])
def test_to_tokens_undoes_to_map(grid: tuple[int, ...]) -> None:
    tokens = torch.randn(2, int(torch.tensor(grid).prod()), 5)
    x = to_map(tokens, grid)
    assert x.shape == (2, 5, *grid)
    assert torch.equal(x[(1, slice(None), *(n - 1 for n in grid))], tokens[1, -1])
    assert torch.equal(to_tokens(x), tokens)


@pytest.mark.parametrize("batch", [1, 2])
def test_convolutions_see_tokens_as_channels_last_without_a_copy(batch: int) -> None:
    tokens = torch.randn(batch, 12, 8)
    x = to_map(tokens, (3, 4))
    assert x.data_ptr() == tokens.data_ptr()
    made = nn.Conv2d(8, 8, 3, padding=1, groups=8)(x)
    assert made.stride() == torch.empty_like(made, memory_format=torch.channels_last).stride()
    assert to_tokens(made).is_contiguous()


def test_pointwise_is_a_convolution_of_size_one() -> None:
    conv, x = nn.Conv2d(4, 3, 1), torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(pointwise(x, conv.weight.flatten(1), conv.bias), conv(x))


def test_resize_keeps_a_constant_and_reaches_the_size() -> None:
    torch.testing.assert_close(resize(torch.full((1, 2, 3, 3), 7.0), (5, 8)), torch.full((1, 2, 5, 8), 7.0))


def test_crop_undoes_padding() -> None:
    a, b = torch.arange(6).view(2, 3), torch.arange(4).view(4, 1)
    stacked = pad_stack([a, b], (4, 5), value=-1)
    assert stacked.shape == (2, 4, 5)
    assert torch.equal(crop(stacked[0], (2, 3)), a)
    assert torch.equal(crop(stacked[1], (4, 1)), b)
    assert (stacked == -1).sum() == 40 - 6 - 4


def test_nothing_is_cut_by_padding() -> None:
    with pytest.raises(ValueError, match="cannot be padded"):
        pad_stack([torch.zeros(3, 9)], (4, 8))
