"""Files of COCO results: a list of {image_id, category_id, bbox, score, segmentation}."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from densevit.data.folders import shortened
from densevit.errors import DataError
from densevit.tasks.detection.coco_eval import Found, ImageRecord
from densevit.tasks.detection.masks import RLE, bounding_box, to_rle


class Entry(NamedTuple):
    """One object of a file: ``place`` says which, for messages; ``box`` is x, y, width, height."""

    place: str
    label: int
    score: float
    box: Sequence[float]
    mask: RLE | None


def read_results(file: Path, category_ids: Sequence[int]) -> dict[int, list[Entry]]:
    """Return the objects of each image in the order of the file. One with a segmentation needs no bbox.

    Raises:
        DataError: The file cannot be read, or an entry is malformed, of an unknown category, or unlike the others
            with or without a segmentation.
    """
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: no file of COCO results ({error})") from error
    if not isinstance(content, list):
        raise DataError(
            f"{file}: COCO results are a list of {{image_id, category_id, bbox, score}}, not a "
            f"{type(content).__name__} as files of ground truth are"
        )
    labels = {category: label for label, category in enumerate(category_ids)}
    images: dict[int, list[Entry]] = {}
    segmented = bool(content) and isinstance(content[0], Mapping) and "segmentation" in content[0]
    for number, values in enumerate(content):
        place = f"{file}: entry {number}"
        try:
            if ("segmentation" in values) != segmented:
                raise ValueError(f"has {'no' if segmented else 'a'} segmentation, unlike entry 0")
            images.setdefault(_integer(values, "image_id"), []).append(_entry(place, values, labels))
        except (DataError, KeyError, OverflowError, TypeError, ValueError) as error:
            reason = f"has no {error}" if isinstance(error, KeyError) else error
            raise DataError(f"{place} {reason}: {json.dumps(values):.200}") from error
    return images


def found_in(entries: Sequence[Entry], segmented: bool, masks: Tensor | None) -> Found:
    """Return the objects of one image.

    Args:
        entries: Of the image.
        segmented: Whether the entries of the file have a segmentation.
        masks: True ones ``(n, H, W)``, which tell the size; None where they are not known.

    Raises:
        DataError: A segmentation is of another size.
    """
    for entry in entries:
        if entry.mask is not None and masks is not None and entry.mask["size"] != list(masks.shape[-2:]):
            raise DataError(
                f"{entry.place} has a segmentation of size {entry.mask['size']}, "
                f"but its image is of {list(masks.shape[-2:])} (height, width)"
            )
    return Found(
        boxes=np.array([entry.box for entry in entries], dtype=np.float64).reshape(-1, 4),
        labels=np.array([entry.label for entry in entries], dtype=np.int64),
        scores=np.array([entry.score for entry in entries], dtype=np.float64),
        masks=tuple(entry.mask for entry in entries if entry.mask is not None) if segmented else None,
    )


def write_results(records: Iterable[ImageRecord], category_ids: Sequence[int], path: Path) -> Path:
    """Write what was found in all images to ``path`` and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[" + ",\n".join(json.dumps(entry) for entry in _as_json(records, category_ids)) + "]\n")
    return path


def _as_json(records: Iterable[ImageRecord], category_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    for image_id, _, found in records:
        for i, (label, box, score) in enumerate(
            zip(found.labels.tolist(), found.boxes.tolist(), found.scores.tolist(), strict=True)
        ):
            entry = {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
            if found.masks is not None:
                mask = found.masks[i]
                entry["segmentation"] = {"size": mask["size"], "counts": mask["counts"].decode("ascii")}
            yield entry


def _entry(place: str, values: Mapping[str, Any], labels: Mapping[int, int]) -> Entry:
    category = _integer(values, "category_id")
    if category not in labels:
        raise ValueError(f"has the category_id {category}, but the dataset has {shortened([str(i) for i in labels])}")
    if not _is_number(values["score"]):
        raise ValueError("has a score that is no finite number")
    mask = _mask(values["segmentation"]) if "segmentation" in values else None
    box = values["bbox"] if mask is None or "bbox" in values else bounding_box(mask)
    if not isinstance(box, Sequence) or len(box) != 4 or not all(map(_is_number, box)) or min(box[2:]) < 0:
        raise ValueError("has a bbox that is not [x, y, width, height]")
    return Entry(place, labels[category], float(values["score"]), box, mask)


def _mask(segmentation: Any) -> RLE:
    if not isinstance(segmentation, Mapping):
        raise ValueError("has a segmentation that is not {size, counts}")
    height, width = (int(side) for side in segmentation["size"])
    return to_rle(segmentation, height, width)


def _integer(values: Mapping[str, Any], key: str) -> int:
    if not isinstance(values[key], int):
        raise ValueError(f"has a {key} that is no whole number")
    return int(values[key])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
