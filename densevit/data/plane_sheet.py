"""Pictures of volumes: slices across the three axes, in proportion."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from densevit.data.font import font

COLUMNS, LONGEST = 4, 180  # slices in a row; pixels of the longest edge of the volume
CAPTION, GAP, FONT_SIZE = 18, 4, 12
WINDOW = (1, 99)  # percentiles that become black and white
AIR = 0.1  # share of the range of intensities, its dark end, that does not count for them
Slices = Sequence[Sequence[int]]


class _Cell(NamedTuple):
    axis: int
    position: int
    top: int
    left: int
    height: int
    width: int


class _Layout(NamedTuple):
    height: int
    width: int
    cells: list[_Cell]
    captions: list[tuple[int, str]]  # top, text


def plane_sheet(volume: Tensor, spacing: Sequence[float], slices: Slices | None = None) -> np.ndarray:
    """Return slices across each axis, the last one first: of a RAS volume, rows of axial, coronal and sagittal planes.

    In each slice the first of its two axes points to the right and the second one up.

    Args:
        volume: ``(C, D, H, W)`` of any intensities; the first channel is shown.
        spacing: Edges of a voxel, in any unit.
        slices: Indices along D, H and W; by default four of each, evenly spaced.

    Returns:
        ``(H', W', 3)`` uint8; the layout depends on shape, ``spacing`` and ``slices`` only.
    """
    voxels = volume.as_subclass(Tensor)[0].float().numpy()
    low, high = intensity_window(voxels)
    layout = _lay_out(voxels.shape, spacing, slices)
    canvas = np.zeros((layout.height, layout.width), np.uint8)
    for cell in layout.cells:
        pixels = np.clip((_plane(voxels, cell) - low) / (high - low), 0, 1)
        shrinks = pixels.shape[0] > cell.height
        _paste(canvas, cell, np.rint(255 * pixels), cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    picture = Image.fromarray(canvas).convert("RGB")
    draw = ImageDraw.Draw(picture)
    for top, text in layout.captions:
        draw.text((GAP, top + 2), text, fill="white", font=font(FONT_SIZE))
    return np.asarray(picture)


def label_sheet(mask: np.ndarray, spacing: Sequence[float], slices: Slices | None = None) -> np.ndarray:
    """Return the ids of a mask ``(D, H, W)`` uint8 where `plane_sheet` has their voxels, ``(H', W')``; else 0."""
    layout = _lay_out(mask.shape, spacing, slices)
    canvas = np.zeros((layout.height, layout.width), np.uint8)
    for cell in layout.cells:
        _paste(canvas, cell, _plane(mask, cell), cv2.INTER_NEAREST_EXACT)
    return canvas


def labelled_slices(mask: np.ndarray) -> Slices | None:
    """Return slices for `plane_sheet` that share out what is labelled in ``(D, H, W)``; None where nothing is."""
    labelled = mask > 0
    if not labelled.any():
        return None
    shares = (np.arange(COLUMNS) + 0.5) / COLUMNS
    found = []
    for axis in range(3):
        counts = labelled.sum(tuple(i for i in range(3) if i != axis))
        found.append(np.unique(np.searchsorted(counts.cumsum(), shares * counts.sum())).tolist())
    return found


def intensity_window(voxels: np.ndarray) -> tuple[float, float]:
    """Return the intensities ``(D, H, W)`` that are shown black and white, so that tissues differ."""
    step = max(1, round((voxels.size / 2**20) ** (1 / 3)))  # percentiles need no more voxels than that
    sample = voxels[::step, ::step, ::step]
    low, high = np.percentile(sample, WINDOW)
    body = sample[sample > low + AIR * (high - low)]  # tissues would be all alike beside the air around them
    if body.size and (tissues := np.percentile(body, WINDOW))[0] < tissues[1]:
        low, high = tissues
    return float(low), float(max(high, low + 1e-6))


def _lay_out(shape: Sequence[int], spacing: Sequence[float], slices: Slices | None) -> _Layout:
    edges = [n * s for n, s in zip(shape, spacing, strict=True)]
    pixels = [max(1, round(LONGEST * edge / max(edges))) for edge in edges]
    chosen = slices or [_evenly(n) for n in shape]
    cells, captions, top, width = [], [], 0, 0
    for axis in (2, 1, 0):
        right, up = (pixels[i] for i in range(3) if i != axis)
        text = f"axis {axis + 1}: {', '.join(map(str, chosen[axis]))}"
        captions.append((top, text))
        top += CAPTION
        lefts = [GAP + i * (right + GAP) for i in range(len(chosen[axis]))]
        cells += [_Cell(axis, k, top, left, up, right) for k, left in zip(chosen[axis], lefts, strict=True)]
        caption = font(FONT_SIZE).getlength(text)
        width = max(width, lefts[-1] + right + GAP, int(caption) + 2 * GAP)
        top += up + GAP
    return _Layout(top, width, cells, captions)


def _evenly(count: int) -> list[int]:
    return sorted({int((i + 0.5) * count / COLUMNS) for i in range(COLUMNS)})


def _plane(voxels: np.ndarray, cell: _Cell) -> np.ndarray:
    return np.take(voxels, cell.position, cell.axis).T[::-1]


def _paste(canvas: np.ndarray, cell: _Cell, pixels: np.ndarray, interpolation: int) -> None:
    place = canvas[cell.top : cell.top + cell.height, cell.left : cell.left + cell.width]
    place[:] = cv2.resize(np.ascontiguousarray(pixels), (cell.width, cell.height), interpolation=interpolation)
