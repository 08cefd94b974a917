"""Which annotations of a COCO file can be used, and what is said of the others."""

import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import sub
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.dist import is_main_process
from mmengine.logging import MMLogger

from densevit.errors import DataError
from densevit.tasks.detection.masks import decode, to_rle
from densevit.tasks.detection.packed import PackedSegmentations, Polygon, Runs

Dropped = tuple[int, int, str]  # annotation id, image id, reason

LISTED = 20  # dropped annotations that are logged
MANY = 0.2  # share of boxes over the edge of their image that is no accident
OVER_EDGE = 1.0  # pixels that a box may reach over the edge of its image without a word
MIN_SIDE = 1e-3  # pixels of a box; less may be nothing in float32
MIN_POLYGON = 1e-6  # pixels; a smaller area is that of points on a line
MAX_OUTLINE = 2**20  # pixels around a polygon: rasterising takes 60 bytes of each, in or out of the image


class _Unusable(Exception):
    """Its text is the reason."""


class ObjectReader:
    """Judges one annotation after the other and collects what is usable of them, in the order of the file.

    A box is clipped to its image. Degenerate polygons of an object that has others too are left out.

    Args:
        image_ids: Of the file.
        heights: Of the images, in pixels.
        widths: Likewise.
        category_ids: In the order of the labels.
        masks: Whether segmentations are wanted.

    Attributes:
        labels: Indices of the categories of what is usable so far.
        dropped: Annotations that cannot be used.
    """

    def __init__(
        self,
        image_ids: Sequence[int],
        heights: Sequence[int],
        widths: Sequence[int],
        category_ids: Sequence[int],
        masks: bool,
    ) -> None:
        self._row_of = {number: row for row, number in enumerate(image_ids)}
        self._label_of = {number: label for label, number in enumerate(category_ids)}
        self._heights, self._widths, self._masks = heights, widths, masks
        self._seen: set[int] = set()
        self._rows, self.labels, self._boxes, self._area = array("q"), array("q"), array("f"), array("f")
        self._crowd = bytearray()
        self._segmentations: list[list[Polygon] | Runs] = []
        self.dropped: list[Dropped] = []
        self._clipped = self._left_out = 0

    def add(self, entry: Mapping[str, Any]) -> None:
        """Collect an annotation, whose three ids are integers, or list it among the dropped."""
        try:
            self._add(entry)
        except _Unusable as reason:
            self.dropped.append((entry["id"], entry["image_id"], str(reason)))

    def _add(self, entry: Mapping[str, Any]) -> None:
        row, label = self._row_of.get(entry["image_id"]), self._label_of.get(entry["category_id"])
        if entry["id"] in self._seen:
            raise _Unusable("its id occurs before")
        self._seen.add(entry["id"])
        if row is None or label is None:
            raise _Unusable("its image is not in the file" if row is None else "its category is not in the file")
        height, width = self._heights[row], self._widths[row]
        box = _corners(entry.get("bbox"))
        clipped = _clip(*box, height, width)
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise _Unusable("iscrowd is neither 0 nor 1")
        area = _area(entry.get("area", (box[2] - box[0]) * (box[3] - box[1])))
        if self._masks:
            self._segmentations.append(self._segmentation(entry.get("segmentation"), height, width))
        self._clipped += max(map(abs, map(sub, box, clipped))) > OVER_EDGE
        self._rows.append(row)
        self.labels.append(label)
        self._boxes.extend(clipped)
        self._crowd.append(int(crowd))
        self._area.append(area)

    def _segmentation(self, value: Any, height: int, width: int) -> list[Polygon] | Runs:
        if not value:
            raise _Unusable("it has no segmentation")
        if isinstance(value, dict):
            return _runs(value, height, width)
        if not isinstance(value, list) or not all(isinstance(polygon, array) for polygon in value):
            raise _Unusable("its segmentation is neither a list of polygons nor a dict of runs")
        faults = [_polygon_fault(polygon) for polygon in value]
        if all(faults):
            raise _Unusable(faults[0])
        self._left_out += sum(map(bool, faults))
        return [polygon for polygon, fault in zip(value, faults, strict=True) if not fault]

    def by_image(self) -> dict[str, Any]:
        """Return the fields of `CocoFile` that hold objects, sorted by image, and the dropped."""
        rows = np.asarray(self._rows)
        order = np.argsort(rows, kind="stable")
        return {
            "starts": np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(self._heights)))]),
            "boxes": np.asarray(self._boxes).reshape(-1, 4)[order],
            "labels": np.asarray(self.labels)[order],
            "crowd": np.asarray(self._crowd, dtype=bool)[order],
            "area": np.asarray(self._area)[order],
            "segmentations": PackedSegmentations(self._segmentations[i] for i in order) if self._masks else None,
            "dropped": tuple(self.dropped),
        }

    def warn(self, path: Path, total: int) -> None:
        """Log, in the main process only, what was dropped or changed of ``total`` annotations."""
        lines = []
        if self.dropped:
            reasons = Counter(reason for _, _, reason in self.dropped).most_common()
            lines = [f"{len(self.dropped)} of {total} annotations cannot be used and are left out"]
            lines += [f"  {count} because {reason}" for reason, count in reasons]
            lines += [f"  annotation {a} of image {i}: {reason}" for a, i, reason in self.dropped[:LISTED]]
            if len(self.dropped) > LISTED:
                lines.append(f"  and {len(self.dropped) - LISTED} more")
        if self._left_out:
            lines.append(f"{self._left_out} degenerate polygons are left out of objects that have others")
        if self._clipped:
            lines.append(f"{self._clipped} boxes reach over the edge of their image and are clipped to it")
        if self._clipped > MANY * len(self.labels):
            lines.append("  so many: are they x1, y1, x2, y2? COCO wants x, y, width, height")
        if self._boxes and max(self._boxes) <= 1:
            lines.append("no box reaches beyond the first pixel: are they shares of the image? COCO wants pixels")
        if lines and is_main_process():
            # In one text: of two files with the same format, mmengine takes the second for a repeat, and drops it.
            MMLogger.get_current_instance().warning(f"{path}: " + "\n".join(lines))


def pack_polygons(value: Any) -> Any:
    """Return a list of polygons with each as float32; anything else as it is."""
    if not isinstance(value, list) or not all(isinstance(polygon, list) for polygon in value):
        return value
    try:
        return [array("f", polygon) for polygon in value]
    except (OverflowError, TypeError):
        return value


def _corners(box: Any) -> tuple[float, float, float, float]:
    """Return x1, y1, x2, y2 of the file's x, y, width, height."""
    try:
        x, y, width, height = box
        finite = math.isfinite(x + y + width + height)
    except (OverflowError, TypeError, ValueError):
        finite = False
    if not finite:
        raise _Unusable("its box is not four finite numbers")
    if width <= 0 or height <= 0:
        raise _Unusable("its box has a width or height of 0 or less")
    return x, y, x + width, y + height


def _clip(x1: float, y1: float, x2: float, y2: float, height: int, width: int) -> tuple[float, float, float, float]:
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        raise _Unusable("its box lies outside of the image")
    x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    if min(x2 - x1, y2 - y1) < MIN_SIDE:
        raise _Unusable("its box has a width or height of 0 or less")
    return x1, y1, x2, y2


def _area(value: Any) -> float:
    if not isinstance(value, int | float) or not 0 <= value < 1e18:
        raise _Unusable("its area is not a finite number of 0 or more")
    return value


def _polygon_fault(polygon: Polygon) -> str:
    """Return what is wrong with a polygon, or ""."""
    if len(polygon) % 2:
        return "its polygon has an odd number of coordinates"
    if len(polygon) < 6:
        return "its polygon has fewer than 3 points"
    points = np.frombuffer(polygon, np.float32).reshape(-1, 2)
    area, outline = cv2.contourArea(points), cv2.arcLength(points, True)
    if not math.isfinite(area):
        return "its polygon has a coordinate that is not finite"
    if not outline < MAX_OUTLINE:
        return f"its polygon has an outline of {outline:g} pixels"
    return "" if area > MIN_POLYGON else "its polygon has no area"


def _runs(value: Mapping[str, Any], height: int, width: int) -> Runs:
    if value.get("size") != [height, width]:
        raise _Unusable("its runs are of another size than the image")
    try:
        runs = to_rle(value, height, width)
        decode(runs)
    except (DataError, RuntimeError, TypeError, ValueError) as error:
        raise _Unusable("its runs are damaged") from error
    return runs["counts"]
