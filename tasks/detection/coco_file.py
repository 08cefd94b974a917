"""Reading of a COCO file of instances (https://cocodataset.org/#format-data) into an index of little memory."""

import json
import os
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from densevit.data.packed_bytes import PackedBytes
from densevit.data.readers import MAX_PIXELS
from densevit.errors import DataError
from densevit.tasks.detection.coco_objects import Dropped, ObjectReader, pack_polygons
from densevit.tasks.detection.packed import PackedSegmentations

IDS = ("id", "image_id", "category_id")


@dataclass(frozen=True)
class CocoFile:
    """Images in the order of the file, and their objects: those of image i are ``starts[i]`` up to ``starts[i + 1]``.

    Attributes:
        path: Of the file.
        classes: Names in the order of the ids of the categories.
        category_ids: In rising order; labels are indices of it.
        image_ids: ``(images,)`` int64.
        names: File of each image, within some folder, as `os.fsencode` gives it.
        heights: ``(images,)`` int32, in pixels.
        widths: Likewise.
        starts: ``(images + 1,)`` int64.
        boxes: ``(objects, 4)`` float32, x1, y1, x2, y2 in pixels, within the image.
        labels: ``(objects,)`` int64.
        crowd: ``(objects,)`` bool.
        area: ``(objects,)`` float32, in pixels as the file says; that of the box where it says none.
        segmentations: Of the objects; None where only boxes are wanted.
        dropped: (annotation id, image id, reason) of the annotations that cannot be used.
    """

    path: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_ids: np.ndarray
    names: PackedBytes
    heights: np.ndarray
    widths: np.ndarray
    starts: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    area: np.ndarray
    segmentations: PackedSegmentations | None
    dropped: tuple[Dropped, ...]

    def objects(self, image: int) -> range:
        """Return the indices of the objects of an image."""
        return range(int(self.starts[image]), int(self.starts[image + 1]))


class _Images(NamedTuple):
    ids: "array[int]"
    names: PackedBytes
    heights: "array[int]"
    widths: "array[int]"


def read_coco(path: str | Path, masks: bool = False) -> CocoFile:
    """Read a file of instances; what cannot be used of its annotations is dropped and logged.

    Args:
        path: The JSON file.
        masks: Keep segmentations; annotations without one are then dropped too.

    Raises:
        DataError: The file is missing, no JSON, not of COCO's layout, has ids or names twice, or no annotation is left;
            with ``masks``, also if none has a segmentation.
    """
    path = Path(path)
    content = _parse(path, masks)
    annotations = _entries(path, content, "annotations")
    category_ids, classes = _read_categories(path, _entries(path, content, "categories"))
    images = _read_images(path, _entries(path, content, "images"))
    if masks and annotations and not any(entry.get("segmentation") for entry in annotations):
        raise DataError(
            f"{path}: no annotation has a segmentation, the file has boxes only: set masks=False and train a detector "
            "of boxes, or use a file with masks"
        )
    reader = ObjectReader(images.ids, images.heights, images.widths, category_ids, masks)
    for position, entry in enumerate(annotations):
        for key in IDS:
            _value(path, "annotations", position, entry, key, int)
        reader.add(entry)
    total = len(annotations)
    content.clear()
    annotations.clear()
    reader.warn(path, total)
    if not reader.labels:
        raise DataError(
            f"{path}: no annotation is left of {total}, so that there is nothing to learn or to score; the log says "
            "why each is left out"
        )
    return CocoFile(
        str(path),
        classes,
        category_ids,
        np.asarray(images.ids),
        images.names,
        np.asarray(images.heights),
        np.asarray(images.widths),
        **reader.by_image(),
    )


def _parse(path: Path, masks: bool) -> Any:
    """Return the content, with polygons packed as they are met: as lists they would take gigabytes."""

    def compact(entry: dict[str, Any]) -> dict[str, Any]:
        if "segmentation" in entry:
            entry["segmentation"] = pack_polygons(entry["segmentation"]) if masks else None
        return entry

    try:
        with open(path, encoding="utf-8") as file:
            return json.loads(file.read(), object_hook=compact)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file (working directory: {Path.cwd()})") from error
    except (OSError, RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: damaged or no JSON file ({error}); get it again") from error


def _entries(path: Path, content: Any, key: str) -> list[dict[str, Any]]:
    if not isinstance(content, dict):
        hint = "; results of a detector are scored by densevit test --from-json" if isinstance(content, list) else ""
        raise DataError(f"{path} is no COCO file: it holds {_kind(content)}, not a dict{hint}")
    if key not in content:
        raise DataError(
            f"{path} is no COCO file of instances: it has no {key!r}, only {', '.join(content) or 'nothing'}; "
            "COCO's own files are called instances_<split>.json"
        )
    entries = content[key]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{path} is no COCO file: {key!r} must be a list of dicts, not {_kind(entries)}")
    if not entries and key != "annotations":
        raise DataError(f"{path}: {key!r} is an empty list")
    return entries


def _read_categories(path: Path, entries: list[dict[str, Any]]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    found: dict[int, str] = {}
    for position, entry in enumerate(entries):
        number = _value(path, "categories", position, entry, "id", int)
        name = _value(path, "categories", position, entry, "name", str)
        if number in found or name in found.values():
            raise DataError(
                f"{path}: categories[{position}] (id {number}, name {name!r}) has the id or the name of one before; "
                "each must occur once"
            )
        found[number] = name
    ids = tuple(sorted(found))
    return ids, tuple(found[number] for number in ids)


def _read_images(path: Path, entries: list[dict[str, Any]]) -> _Images:
    ids, names, heights, widths = array("q"), [], array("i"), array("i")
    seen: dict[int, int] = {}
    for position, entry in enumerate(entries):
        number = _value(path, "images", position, entry, "id", int)
        if number in seen:
            raise DataError(
                f"{path}: images[{position}] has the id {number} of images[{seen[number]}]; give each image its own"
            )
        seen[number] = position
        ids.append(number)
        name = _value(path, "images", position, entry, "file_name", str)
        try:
            names.append(os.fsencode(name))
        except UnicodeEncodeError as error:
            raise DataError(f"{path}: images[{position}] (id {number}): no file is called {name!r}: {error}") from error
        for key, sides in (("height", heights), ("width", widths)):
            side = _value(path, "images", position, entry, key, int)
            if not 0 < side < 2**31:
                raise DataError(f"{path}: images[{position}] (id {number}): {key!r} must be positive, not {side}")
            sides.append(side)
        if heights[-1] * widths[-1] > MAX_PIXELS:
            raise DataError(
                f"{path}: images[{position}] (id {number}) is {heights[-1]} x {widths[-1]}, more than the {MAX_PIXELS} "
                "pixels that can be read; correct height and width"
            )
    return _Images(ids, PackedBytes(names), heights, widths)


def _value(path: Path, key: str, position: int, entry: Mapping[str, Any], name: str, kind: type) -> Any:
    value: Any = entry.get(name)
    huge = isinstance(value, int) and abs(value) >= 2**63
    if type(value) is not kind or huge:  # True is no number here
        number = f" (id {entry['id']!r})" if name != "id" and "id" in entry else ""
        wanted = {int: "an integer", str: "a text"}[kind]
        raise DataError(
            f"{path}: {key}[{position}]{number}: {name!r} must be {wanted}, "
            + (f"not {_kind(value)}" if name in entry else "but is missing")
        )
    return value


def _kind(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:40] + '...'}"
