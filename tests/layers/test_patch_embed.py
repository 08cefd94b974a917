"""Patches are what a convolution by kernels that do not overlap sees."""

import pytest
import torch

from densevit.layers import PatchEmbed


@pytest.mark.parametrize(
    ("patch_size", "space", "grid"),
    [(4, (8, 12), (2, 3)), (4, (7, 9), (2, 3)), ((2, 4, 3), (4, 8, 9), (2, 2, 3)), ((2, 4, 3), (3, 5, 7), (2, 2, 3))],
)
def test_tokens_are_those_of_the_convolution_in_its_order(
    patch_size: int | tuple[int, ...], space: tuple[int, ...], grid: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    embed = PatchEmbed(3, 5, patch_size).double()
    x = torch.randn(2, 3, *space, dtype=torch.float64)
    tokens, cells = embed(x)
    sides = embed.patch_size
    gaps = [-n % side for n, side in zip(space, sides, strict=True)]
    padded = torch.nn.functional.pad(x, [p for gap in reversed(gaps) for p in (0, gap)])
    assert tuple(cells) == grid
    torch.testing.assert_close(tokens, embed.proj(padded).flatten(2).transpose(1, 2))
