"""Masks as runs: the same as pycocotools writes and a mask head means."""

import time
import tracemalloc

import numpy as np
import pytest
import torch
from pycocotools import mask as reference
from torch import Tensor
from torch.nn import functional as F

from densevit.errors import DataError
from densevit.tasks.detection.masks import areas, bounding_box, decode, encode, encode_all, paste, rasterise, resize

SIZE = (60, 80)
SQUARE = [10, 10, 20, 10, 20, 20, 10, 20]


def random_masks(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    masks = (rng.random((count, 7, 5)) > rng.random((count, 1, 1))).astype(np.uint8)
    return np.concatenate([masks, np.zeros((1, 7, 5), np.uint8), np.ones((1, 7, 5), np.uint8)])


def test_runs_and_their_pixels_equal_those_of_pycocotools() -> None:
    masks = random_masks(50)
    runs = encode_all(masks)
    assert list(runs) == [reference.encode(np.asfortranarray(mask)) for mask in masks]
    assert all(np.array_equal(decode(rle), mask) for rle, mask in zip(runs, masks, strict=True))
    assert areas(runs).tolist() == masks.sum((1, 2)).tolist()
    assert all(bounding_box(rle) == tuple(reference.toBbox(rle)) for rle in runs)


def test_polygons_are_filled_as_by_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        polygons = [(rng.random(2 * rng.integers(3, 9)) * 90 - 5).tolist() for _ in range(rng.integers(1, 4))]
        expected = reference.decode(reference.merge(reference.frPyObjects(polygons, *SIZE)))
        assert np.array_equal(rasterise(polygons, *SIZE), expected)
    assert rasterise([], *SIZE).sum() == 0


def test_runs_are_read_whether_compressed_or_not() -> None:
    rng = np.random.default_rng(0)
    for density in (0.001, 0.1, 0.5):
        mask = (rng.random((300, 400)) < density).astype(np.uint8)
        flat = mask.ravel(order="F")
        ends = np.flatnonzero(np.diff(flat)) + 1
        counts = np.diff([0, *([0] if flat[0] else []), *ends, flat.size]).tolist()
        compressed = encode(mask)
        for written in (counts, compressed["counts"], compressed["counts"].decode()):
            assert np.array_equal(rasterise({"size": [300, 400], "counts": written}, 300, 400), mask)


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[1, 2, 3, 4]], "three points or more"),
        ([[1, 2, 3, 4, 5, 6, 7]], "three points or more"),
        ([SQUARE, [1, 2, "x", 4, 5, 6]], "other things than numbers"),
        ([[1, 2, float("nan"), 4, 5, 6]], "not finite"),
        ("polygons", "list of polygons"),
        (None, "list of polygons"),
        ({"size": [80, 60], "counts": [4800]}, r"size \[80, 60\] for an image of size \[60, 80\]"),
        ({"counts": [4800]}, "size None"),
        ({"size": [60, 80], "counts": [100, 20]}, "not of 4800 pixels"),
        ({"size": [60, 80], "counts": [4820, -20]}, "not of 4800 pixels"),
        ({"size": [60, 80], "counts": b"T3d0X"}, "characters are missing or wrong"),
        ({"size": [60, 80], "counts": b""}, "characters are missing or wrong"),
        ({"size": [60, 80], "counts": "T3d0Xb5"}, "not of 4800 pixels"),
        ({"size": [60, 80], "counts": None}, "damaged"),
        ({"size": [60, 80], "counts": "ä"}, "damaged"),
    ],
)
def test_a_damaged_segmentation_is_an_error(segmentation: object, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        rasterise(segmentation, *SIZE)


def test_a_mask_of_another_size_covers_the_same_part() -> None:
    mask = rasterise([SQUARE], *SIZE)
    assert np.array_equal(decode(resize(encode(mask), 120, 160)), mask.repeat(2, 0).repeat(2, 1))
    assert resize(encode(mask), *SIZE) == encode(mask)


def pasted_by_grid_sample(cells: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> np.ndarray:
    """The masks ``(n, H, W)`` from an interpolation at every pixel of the image."""
    x1, y1, x2, y2 = boxes.split(1, 1)
    y = (torch.arange(height) + 0.5 - y1) / (y2 - y1) * 2 - 1
    x = (torch.arange(width) + 0.5 - x1) / (x2 - x1) * 2 - 1
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=3)
    return (F.grid_sample(cells[:, None], grid, align_corners=False)[:, 0] >= threshold).numpy()


@pytest.mark.parametrize("threshold", [0.5, 0.2])
@pytest.mark.parametrize("cells", [28, 7])
def test_masks_are_pasted_as_by_sampling_the_whole_image(cells: int, threshold: float) -> None:
    torch.manual_seed(0)
    size = torch.tensor([80, 60])
    start, sides = torch.rand(100, 2) * 1.2 * size - 10, torch.rand(100, 2) * size + 0.3
    boxes, probabilities = torch.cat([start, start + sides], dim=1), torch.rand(100, cells, cells)
    runs = paste(probabilities, boxes, *SIZE, threshold)
    expected = pasted_by_grid_sample(probabilities, boxes, *SIZE, threshold)
    assert np.array_equal(np.stack([decode(rle) for rle in runs]), expected)
    assert expected.any((1, 2)).sum() > 80


def test_nothing_is_pasted_from_nothing_into_nothing() -> None:
    assert paste(torch.zeros(0, 28, 28), torch.zeros(0, 4), *SIZE) == ()
    boxes = torch.tensor([[5.0, 5, 5, 30], [90, 5, 120, 30], [5, -40, 20, -3]])
    assert areas(paste(torch.ones(3, 28, 28), boxes, *SIZE)).tolist() == [0, 0, 0]


def test_a_hundred_masks_take_the_memory_of_one() -> None:
    height, width = 500, 700
    boxes = torch.tensor([[0.0, 0, width, height]]).repeat(100, 1)
    start = time.perf_counter()
    tracemalloc.start()
    paste(torch.rand(100, 28, 28).round(), boxes, height, width)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * height * width  # bytes; floats of all would be 400 for each pixel
    assert time.perf_counter() - start < 5
