"""Masks of objects as COCO's run-length encoding: from polygons, from arrays, from what a mask head predicts."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import cv2
import numpy as np
from faster_coco_eval.core import mask as api
from torch import Tensor

from densevit.errors import DataError


class RLE(TypedDict):
    """A binary mask: ``size`` is [H, W], ``counts`` the compressed lengths of its runs, down column after column."""

    size: list[int]
    counts: bytes


def rasterise(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Return the mask ``(H, W)``, uint8, of the ``segmentation`` of a COCO file.

    Raises:
        DataError: As `to_rle`.
    """
    return decode(to_rle(segmentation, height, width))


def to_rle(segmentation: Any, height: int, width: int) -> RLE:
    """Return the ``segmentation`` of a COCO file, polygons or runs, compressed or not, as runs.

    Raises:
        DataError: It is neither, or it does not fit an image of ``height`` times ``width`` pixels.
    """
    if isinstance(segmentation, Mapping):
        return _checked_runs(segmentation, height, width)
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str | bytes):
        raise DataError(f"a segmentation is a list of polygons or a dict of runs, not {segmentation!r:.80}")
    for polygon in segmentation:
        if not isinstance(polygon, Sequence) or isinstance(polygon, str) or len(polygon) < 6 or len(polygon) % 2:
            raise DataError(f"a polygon is a list x1, y1, x2, y2, ... of three points or more, not {polygon!r:.80}")
    if not segmentation:
        return encode(np.zeros((height, width), dtype=np.uint8))
    try:
        points = [np.asarray(polygon, dtype=np.float64).tolist() for polygon in segmentation]
    except (TypeError, ValueError) as error:
        raise DataError(f"a polygon has other things than numbers: {error}") from error
    if not all(np.isfinite(polygon).all() for polygon in points):
        raise DataError("a polygon has a coordinate that is not finite")
    return _rle(api.merge(api.frPyObjects(points, height, width)))


def _checked_runs(runs: Mapping[str, Any], height: int, width: int) -> RLE:
    counts, size = runs.get("counts"), runs.get("size")
    if not isinstance(size, Sequence) or list(size) != [height, width]:
        raise DataError(f"runs of size {size} for an image of size {[height, width]} (height, width)")
    try:
        counts = counts.encode("ascii") if isinstance(counts, str) else counts
        lengths = _lengths(counts) if isinstance(counts, bytes) else np.asarray(counts, dtype=np.int64)
        if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != height * width:
            raise ValueError(f"they are not of {height * width} pixels")
    except (OverflowError, TypeError, ValueError) as error:
        raise DataError(f"runs that are damaged: {error}") from error
    return (
        {"size": [height, width], "counts": counts} if isinstance(counts, bytes) else _compress(lengths, height, width)
    )


def _lengths(counts: bytes) -> np.ndarray:
    """Return the lengths of compressed runs: 5 bits to a character, the differences to the last run but one."""
    digits = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    last = digits & 32 == 0
    if not len(digits) or not last[-1] or digits.min() < 0 or digits.max() > 63:
        raise ValueError("characters are missing or wrong")
    ends = np.flatnonzero(last) + 1
    starts = np.concatenate([[0], ends[:-1]])
    if (ends - starts).max() > 7:
        raise ValueError("a run is too long")
    places = np.arange(len(digits)) - np.repeat(starts, ends - starts)
    values = np.add.reduceat((digits & 31) << 5 * places, starts)
    values -= np.where(digits[last] & 16, 1 << 5 * (ends - starts), 0)
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values


def encode(mask: np.ndarray) -> RLE:
    """Return the runs of a mask ``(H, W)``, uint8 or bool; not 0 is inside."""
    return _encode_strip(mask, 0, mask.shape[1])


def encode_all(masks: np.ndarray) -> tuple[RLE, ...]:
    """Return the runs of each of the masks ``(n, H, W)``, uint8 or bool."""
    return tuple(encode(mask) for mask in masks)


def decode(rle: RLE) -> np.ndarray:
    """Return the mask ``(H, W)``, uint8, 1 inside."""
    return np.ascontiguousarray(api.decode(dict(rle)))


def _encode_strip(strip: np.ndarray, left: int, width: int) -> RLE:
    """Return the runs of a mask that is ``strip`` ``(H, w)`` in the columns from ``left`` on, and 0 elsewhere."""
    height = len(strip)
    flat = np.zeros(strip.size + 2, dtype=bool)
    flat[1:-1] = strip.T.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + left * height
    ends = changes[changes < height * width]
    counts = np.diff(ends, prepend=0, append=height * width)
    return _compress(counts, height, width)


def resize(rle: RLE, height: int, width: int) -> RLE:
    """Return the mask brought to another size, by the nearest pixel."""
    if rle["size"] == [height, width]:
        return rle
    return encode(cv2.resize(decode(rle), (width, height), interpolation=cv2.INTER_NEAREST_EXACT))


def areas(masks: Sequence[RLE]) -> np.ndarray:
    """Return the pixels inside each mask, ``(n,)`` float64."""
    return np.asarray(api.area([dict(mask) for mask in masks]), dtype=np.float64)


def bounding_box(mask: RLE) -> tuple[float, ...]:
    """Return x, y, width and height of what is inside."""
    return tuple(float(side) for side in api.toBbox(dict(mask)))


def paste(probabilities: Tensor, boxes: Tensor, height: int, width: int, threshold: float = 0.5) -> tuple[RLE, ...]:
    """Bring what a mask head predicts inside of boxes to an image: the pixels of at least ``threshold``.

    Each pixel takes the bilinear interpolation at its centre, 0 outside of the predicted cells, as
    ``F.grid_sample(align_corners=False)``. On a straight grid that is a product of three matrices, and only the pixels
    of the box are computed, one object at a time.

    Args:
        probabilities: ``(n, M, M)``, between 0 and 1.
        boxes: ``(n, 4)``, x1, y1, x2, y2 in pixels of the image.
        height: Of the image.
        width: Of the image.
        threshold: Of the probability.
    """
    cells, corners = probabilities.float().cpu().numpy(), boxes.double().cpu().numpy()
    return tuple(_paste(*pair, height, width, threshold) for pair in zip(cells, corners, strict=True))


def _paste(cells: np.ndarray, box: np.ndarray, height: int, width: int, threshold: float) -> RLE:
    x1, y1, x2, y2 = box.tolist()
    top, rows = _weights(y1, y2, height, len(cells))
    left, columns = _weights(x1, x2, width, len(cells))
    strip = np.zeros((len(columns), height), dtype=bool)  # transposed: runs go down the columns
    np.greater_equal(columns @ cells.T @ rows.T, threshold, out=strip[:, top : top + len(rows)])
    return _encode_strip(strip.T, left, width)


def _weights(start: float, stop: float, length: int, count: int) -> tuple[int, np.ndarray]:
    """Return how much pixels take of each of ``count`` cells between ``start`` and ``stop``, ``(pixels, count)``.

    These are the pixels that any cell reaches; the index of the first comes before.
    """
    cell = max(stop - start, 1e-6) / count
    first = int(np.clip(np.floor(start - cell / 2), 0, length))
    last = int(np.clip(np.ceil(stop + cell / 2), first, length))
    position = (np.arange(first, last) + 0.5 - start) / cell - 0.5
    weights = 1 - np.abs(position[:, None] - np.arange(count))
    return first, np.maximum(weights, 0).astype(np.float32)


def _compress(lengths: np.ndarray, height: int, width: int) -> RLE:
    return _rle(api.frPyObjects({"size": [height, width], "counts": lengths.tolist()}, height, width))


def _rle(runs: Mapping[str, Any]) -> RLE:
    return {"size": [int(side) for side in runs["size"]], "counts": bytes(runs["counts"])}
