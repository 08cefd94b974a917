"""Labels on the grid of an input become labels on that of its file."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from densevit.tasks.medical import grid
from densevit.tasks.medical.grid import resample_labels, scaling


def affine(matrix: list[list[float]], shift: list[float]) -> Tensor:
    found = torch.eye(4, dtype=torch.float64)
    found[:3, :3] = torch.tensor(matrix)
    found[:3, 3] = torch.tensor(shift)
    return found


def noise(*size: int) -> Tensor:
    torch.manual_seed(0)
    return torch.randint(0, 4, size, dtype=torch.uint8)


def looked_up(labels: Tensor, to_input: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return the label that each voxel of the file lies on, voxel by voxel."""
    found = torch.zeros(size, dtype=labels.dtype)
    for index in itertools.product(*map(range, size)):
        place = (to_input @ torch.tensor([*index, 1.0], dtype=torch.float64)).round().long()[:3].tolist()
        if all(0 <= i < n for i, n in zip(place, labels.shape, strict=True)):
            found[index] = labels[tuple(place)]
    return found


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_exchanged_and_reversed_axes_and_margins_are_exact(axes: tuple[int, ...]) -> None:
    labels, size = noise(5, 4, 6), (4, 7, 5)
    for signs, shift in (((1, 1, 1), (0, 0, 0)), ((-1, 1, -1), (4, -2, 3)), ((1, -1, 1), (3, 3, -9))):
        matrix = [[float(signs[row]) * (axes[row] == column) for column in range(3)] for row in range(3)]
        to_input = affine(matrix, list(map(float, shift)))
        expected = looked_up(labels, to_input, size)
        assert torch.equal(resample_labels(labels, to_input, size), expected)
        rounded = to_input + 1e-6 * torch.rand(4, 4, dtype=torch.float64)  # as inverses of matrices are
        assert torch.equal(resample_labels(labels, rounded, size), expected)


def spheres(size: int) -> Tensor:
    """Return two touching spheres, 1 and 2, in a background."""
    z, y, x = torch.meshgrid(*(torch.arange(size),) * 3, indexing="ij")
    labels = torch.zeros(size, size, size, dtype=torch.uint8)
    for k, (a, b, c) in ((1, (10, 10, 6)), (2, (10, 10, 14))):
        labels[(z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2 <= 16] = k
    return labels


@pytest.mark.parametrize("chunk", [1 << 21, 300])
def test_another_spacing_takes_the_largest_of_the_interpolated_classes(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "_CHUNK", chunk)  # small: many slabs
    labels, size = spheres(20), (33, 27, 40)
    to_input = scaling(size, (20, 20, 20))
    shares = F.interpolate(F.one_hot(labels.long()).movedim(-1, 0)[None].float(), size, mode="trilinear")[0]
    first, second = shares.topk(2, dim=0).values
    found, clear = resample_labels(labels, to_input, size), first - second > 1e-5  # but for ties
    assert clear.float().mean() > 0.99
    assert torch.equal(found[clear], shares.argmax(dim=0).to(torch.uint8)[clear])


def test_a_rotation_there_and_back_keeps_volumes() -> None:
    labels = spheres(20)
    c, s = 0.96, 0.28
    middle = torch.tensor([9.5, 9.5, 9.5], dtype=torch.float64)
    turn = affine([[1, 0, 0], [0, c, -s], [0, s, c]], [0, 0, 0])
    turn[:3, 3] = middle - turn[:3, :3] @ middle
    there = resample_labels(labels, turn, (20, 20, 20))
    back = resample_labels(there, torch.linalg.inv(turn), (20, 20, 20))
    for k in (1, 2):
        overlap = 2 * ((back == k) & (labels == k)).sum() / ((back == k).sum() + (labels == k).sum())
        assert overlap > 0.93
    assert not torch.equal(there, labels)


def test_voxels_outside_the_input_are_background() -> None:
    labels = torch.full((4, 4, 4), 3, dtype=torch.uint8)
    found = resample_labels(labels, scaling((8, 8, 8), (4, 4, 4)) + affine([[0] * 3] * 3, [-10.0, 0, 0]), (8, 8, 8))
    assert not found.any()
    half = resample_labels(labels, affine([[0.5, 0, 0], [0, 1, 0], [0, 0, 1]], [-1.0, 0, 0]), (16, 4, 4))
    # a voxel that is at least half inside is a class, by the sampling of a border that falls off linearly
    assert half[:, 0, 0].tolist() == [0, 0, 3, 3, 3, 3, 3, 3, 3, 0, 0, 0, 0, 0, 0, 0]


def test_a_single_slice_works() -> None:
    labels = noise(1, 6, 6)
    assert torch.equal(resample_labels(labels, torch.eye(4, dtype=torch.float64), (1, 6, 6)), labels)
    assert resample_labels(labels, scaling((2, 9, 9), (1, 6, 6)), (2, 9, 9)).shape == (2, 9, 9)
