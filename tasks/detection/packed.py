"""Many small values in few arrays: an index that workers share after a fork, and that is sent to others in one go.

As Python objects the polygons of COCO's training set take gigabytes, and as every use of an object writes its count of
references, each worker would come to hold a copy.
"""

from array import array
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np

from densevit.data.packed_bytes import PackedBytes

Polygon: TypeAlias = "array[float]"
Runs: TypeAlias = bytes  # compressed counts of COCO's run-length encoding

DECIMALS = 3  # that float32 holds in images up to 8192 pixels


class PackedSegmentations:
    """Segmentations by index, each either polygons or runs.

    Coordinates are float32. Rasterising takes the floor of multiples of them, and what is written with one decimal
    often lies on its steps; so they are given back as the decimals that the file had, to a thousandth of a pixel.
    """

    def __init__(self, items: Iterable[list[Polygon] | Runs]) -> None:
        points, lengths, counts, runs = array("f"), array("q", [0]), array("q", [0]), []
        for item in items:
            polygons, coded = ([], item) if isinstance(item, bytes) else (item, b"")
            for polygon in polygons:
                points.extend(polygon)
                lengths.append(len(polygon))
            counts.append(len(polygons))
            runs.append(coded)
        self._points = np.frombuffer(points, np.float32) if points else np.empty(0, np.float32)
        self._ends = np.cumsum(lengths)  # of polygons in the points
        self._last = np.cumsum(counts)  # of objects in the polygons
        self._runs = PackedBytes(runs)

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, index: int) -> list[list[float]] | Runs:
        if runs := self._runs[index]:
            return runs
        ends = self._ends[self._last[index] : self._last[index + 1] + 1]
        points = self._points[ends[0] : ends[-1]].astype(np.float64).round(DECIMALS)
        return [part.tolist() for part in np.split(points, ends[1:-1] - ends[0])]
