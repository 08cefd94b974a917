"""Windows: every cell is in one of them, with its neighbours, at any size."""

import pytest
import torch

from densevit.layers import from_windows, to_windows


@pytest.mark.parametrize(
    ("grid", "window"),
    [((8,), (4,)), ((4, 6), (2, 3)), ((5, 7), (2, 3)), ((3, 3), (8, 4)), ((3, 5, 4), (2, 2, 3))],
)
@pytest.mark.parametrize("trailing", [(5,), (2, 3)])
def test_from_windows_undoes_to_windows(
    grid: tuple[int, ...], window: tuple[int, ...], trailing: tuple[int, ...]
) -> None:
    x = torch.randn(2, int(torch.tensor(grid).prod()), *trailing)
    windows = to_windows(x, grid, window)
    count = int(torch.tensor([-(-n // w) for n, w in zip(grid, window, strict=True)]).prod())
    assert windows.shape == (2 * count, int(torch.tensor(window).prod()), *trailing)
    assert torch.equal(from_windows(windows, grid, window), x)


def test_a_window_holds_neighbours_row_by_row_and_ends_with_zeros() -> None:
    x = torch.arange(1, 16).view(1, 15, 1)  # a grid of 3 x 5
    assert to_windows(x, (3, 5), (2, 3)).squeeze(-1).tolist() == [
        [1, 2, 3, 6, 7, 8],
        [4, 5, 0, 9, 10, 0],
        [11, 12, 13, 0, 0, 0],
        [14, 15, 0, 0, 0, 0],
    ]


def test_a_window_as_large_as_the_grid_copies_nothing() -> None:
    x = torch.randn(2, 12, 5)
    assert to_windows(x, (3, 4), (3, 4)).data_ptr() == x.data_ptr()
