"""Average precision and recall of COCO from what was found and what is there."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from densevit.tasks.detection.masks import RLE, areas


class Truth(NamedTuple):
    """The n true objects of an image.

    Attributes:
        boxes: ``(n, 4)`` float64, x, y, width, height.
        labels: ``(n,)`` int64.
        crowd: ``(n,)`` bool.
        area: ``(n,)`` float64, as the file says.
        masks: One for each; None where only boxes are known.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    area: np.ndarray
    masks: tuple[RLE, ...] | None


class Found(NamedTuple):
    """The m objects that were predicted for an image; fields are as those of `Truth`."""

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    masks: tuple[RLE, ...] | None


class ImageRecord(NamedTuple):
    """All that is scored of an image."""

    image_id: int
    truth: Truth
    found: Found


class CocoScores(NamedTuple):
    """Precisions and recalls of T thresholds of IoU, K classes, sizes (all, small, medium, large) and D depths.

    Attributes:
        precision: ``(T, 101, K, 4, D)`` at recalls of 0, 0.01, ... 1; -1 where there is no such object.
        recall: ``(T, K, 4, D)``, likewise.
    """

    precision: np.ndarray
    recall: np.ndarray

    def means(self) -> dict[str, float]:
        """Return the twelve numbers of COCO between 0 and 1; NaN where there is no such object.

        Average precision counts as many objects per image as `evaluate` was told; so do recalls, but AR1 and AR10.
        """
        sizes = {"s": 1, "m": 2, "l": 3}
        depths = {"AR1": 0, "AR10": -2, "AR": -1}
        return {
            "AP": _mean(self.precision[..., 0, -1]),
            "AP50": _mean(self.precision[0, ..., 0, -1]),
            "AP75": _mean(self.precision[5, ..., 0, -1]),
            **{f"AP{name}": _mean(self.precision[..., size, -1]) for name, size in sizes.items()},
            **{name: _mean(self.recall[..., 0, depth]) for name, depth in depths.items()},
            **{f"AR{name}": _mean(self.recall[..., size, -1]) for name, size in sizes.items()},
        }

    def of_classes(self) -> list[tuple[float, float]]:
        """Return AP and AP50 of each class; NaN without an object."""
        each = np.moveaxis(self.precision[..., 0, -1], 2, 0)
        return [(_mean(curves), _mean(curves[0])) for curves in each]


def evaluate(records: Sequence[ImageRecord], iou_type: str, num_classes: int, max_per_image: int = 100) -> CocoScores:
    """Match what was found to what is there, class by class, the best scores first.

    Args:
        records: Of all images, each once.
        iou_type: "bbox", or "segm" for the overlap of masks, which all objects then have.
        num_classes: Number of classes.
        max_per_image: How many objects of a class in an image count.
    """
    images = [{"id": record.image_id, **_size(record)} for record in records]
    categories = [{"id": label, "name": str(label)} for label in range(num_classes)]
    sides = [
        COCO({"images": images, "annotations": list(annotations), "categories": categories})
        for annotations in (_true_entries(records, iou_type), _found_entries(records, iou_type))
    ]
    run = COCOeval_faster(*sides, iouType=iou_type)
    run.params.maxDets = [min(1, max_per_image), min(10, max_per_image), max_per_image]
    run.evaluate()
    run.accumulate()
    return CocoScores(*(np.asarray(run.eval[name]) for name in ("precision", "recall")))


def _true_entries(records: Sequence[ImageRecord], iou_type: str) -> Iterator[dict[str, Any]]:
    numbers = count(1)  # 0 means unmatched
    for record in records:
        truth = record.truth
        extra = {"area": truth.area.tolist(), "iscrowd": truth.crowd.astype(int).tolist()}
        yield from _entries(record.image_id, truth, iou_type, numbers, extra)


def _found_entries(records: Sequence[ImageRecord], iou_type: str) -> Iterator[dict[str, Any]]:
    numbers = count(1)
    for record in records:
        found = record.found
        size = areas(found.masks or ()) if iou_type == "segm" else found.boxes[:, 2] * found.boxes[:, 3]
        extra = {"area": size.tolist(), "score": found.scores.tolist()}
        yield from _entries(record.image_id, found, iou_type, numbers, extra)


def _entries(
    image_id: int, objects: Truth | Found, iou_type: str, numbers: Iterator[int], extra: dict[str, list[Any]]
) -> Iterator[dict[str, Any]]:
    """Yield the objects of an image as in a file of COCO."""
    columns: dict[str, Iterable[Any]] = {
        "bbox": objects.boxes.tolist(),
        "category_id": objects.labels.tolist(),
        "image_id": [image_id] * len(objects.boxes),
        **extra,
    }
    if iou_type == "segm":
        columns["segmentation"] = objects.masks or ()
    names = ("id", *columns)
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(names, (next(numbers), *values), strict=True))


def _size(record: ImageRecord) -> dict[str, int]:
    """Return the height and width that masks tell; boxes alone are compared without."""
    masks = record.truth.masks or record.found.masks
    height, width = masks[0]["size"] if masks else (0, 0)
    return {"height": height, "width": width}


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")
