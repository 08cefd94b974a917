"""The metric of COCO."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import dist
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from densevit.engine.confusion import draw_confusion
from densevit.errors import ConfigError, DataError
from densevit.registry import METRICS
from densevit.structures import BoxTarget, Sample
from densevit.tables import print_table
from densevit.tasks.detection.coco_eval import CocoScores, Found, ImageRecord, Truth, evaluate
from densevit.tasks.detection.coco_results import found_in, read_results, write_results
from densevit.tasks.detection.masks import encode_all
from densevit.tasks.detection.metric_pictures import count_confusions, draw_curves, f1_of
from densevit.tasks.detection.prediction import DetPrediction, xywh

IOU_TYPES = ("bbox", "segm")
RETURNED = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR")


@METRICS.register_module()
class CocoMetric(BaseMetric):
    """Average precision and recall of COCO between 0 and 1, of boxes (bbox_AP, ...) and of masks (segm_AP, ...).

    What was found and what is there is kept image by image, masks as runs, gathered from the processes and put in
    order of the images: the result does not depend on the batch size or the number of processes. Numbers of which
    there is no object, such as APl without a large one, are NaN.

    Args:
        max_per_image: How many objects of a class in an image count.
        iou_types: Of "bbox" and "segm"; None takes masks where they are predicted.

    Raises:
        ConfigError: ``max_per_image`` or ``iou_types`` is impossible, or asks for masks that are not there.
    """

    score_name = "F1"  # of batch_scores
    rising = tuple(f"{iou_type}_{name}" for iou_type in IOU_TYPES for name in RETURNED)
    default_prefix = "detection"  # quiets mmengine, which wants one; `evaluate` names the results without it

    def __init__(self, max_per_image: int = 100, iou_types: Sequence[str] | None = None) -> None:
        super().__init__()
        if max_per_image < 1:
            raise ConfigError(f"CocoMetric: max_per_image is at least 1, not {max_per_image}")
        if iou_types is not None and (isinstance(iou_types, str) or not set() < set(iou_types) <= set(IOU_TYPES)):
            raise ConfigError(f'CocoMetric: iou_types is a list of "bbox", "segm" or both, not {iou_types!r}')
        self.max_per_image = max_per_image
        self.iou_types = None if iou_types is None else tuple(iou_types)
        self.records: list[ImageRecord] = []
        self.evaluated: list[ImageRecord] = []  # by the main process
        self.scores: dict[str, CocoScores] = {}
        self.batch_scores: list[float] = []

    def process(self, data_batch: Sequence[Sample], data_samples: Sequence[DetPrediction]) -> None:
        """Keep what was found in a batch, and what is there.

        Raises:
            DataError: A prediction is for an image of another size, or of a class that there is not.
        """
        for sample, prediction in zip(data_batch, data_samples, strict=True):
            path, size = sample.meta.path, tuple(sample.meta.original_size)
            if prediction.size != size:
                raise DataError(f"{path} is {size} (height, width), but what was predicted for it {prediction.size}")
            if len(prediction.labels) and int(prediction.labels.max()) >= self._class_count():
                raise DataError(
                    f"{path} has a predicted label {int(prediction.labels.max())}, but "
                    f"there are {self._class_count()} classes: was the model trained with others?"
                )
            self.add(sample.target, _found(prediction))
        self.batch_scores = [f1_of(record, self._class_count()) for record in self.records[-len(data_batch) :]]

    def add(self, target: BoxTarget, found: Found) -> None:
        """Keep what was found in one image, and what is there."""
        masks = None
        if target.masks is not None and self.iou_types != ("bbox",) and found.masks is not None:
            masks = encode_all(target.masks.cpu().numpy())
        truth = Truth(
            boxes=xywh(target.boxes),
            labels=target.labels.cpu().numpy(),
            crowd=target.crowd.cpu().numpy(),
            area=target.area.double().cpu().numpy(),
            masks=masks,
        )
        self.records.append(ImageRecord(int(target.image_id), truth, found))

    def read(self, file: Path, dataset: Any) -> None:
        """Keep what a file of COCO results, of any tool, says of the images of a dataset, and what is there.

        Raises:
            DataError: The file is no such file, or contradicts the dataset.
        """
        entries = read_results(file, self.dataset_meta["category_ids"])
        segmented = any(entry.mask is not None for of_image in entries.values() for entry in of_image)
        for index in range(len(dataset)):
            target = dataset.read_target(index)
            self.add(target, found_in(entries.pop(int(target.image_id), []), segmented, target.masks))
        for image_id, of_image in entries.items():
            raise DataError(
                f"{of_image[0].place} has the image_id {image_id}, which the dataset does not have ({len(entries)} ids "
                "are unknown): is the file of another split?"
            )

    def write(self, folder: Path) -> Path:
        """Write what was found in the images that were evaluated last to ``coco_detections.json`` in ``folder``."""
        return write_results(self.evaluated, self.dataset_meta["category_ids"], folder / "coco_detections.json")

    def evaluate(self, size: int) -> dict[str, float]:
        """Gather from the processes, print the tables, return the numbers."""
        own, self.records = self.records, []
        gathered = dist.all_gather_object(own)
        means = [self.compute_metrics([r for part in gathered for r in part]) if dist.is_main_process() else None]
        dist.broadcast_object_list(means)
        assert means[0] is not None, "the main process has computed them"
        return means[0]

    def compute_metrics(self, results: list[ImageRecord]) -> dict[str, float]:
        """Return the numbers of all images."""
        by_id = {record.image_id: record for record in results}  # a sampler may have padded
        self.evaluated = [by_id[image_id] for image_id in sorted(by_id)]
        types = self._types()
        self.scores = {t: evaluate(self.evaluated, t, self._class_count(), self.max_per_image) for t in types}
        means = {iou_type: scores.means() for iou_type, scores in self.scores.items()}
        self._print(means)
        return {f"{iou_type}_{name}": means[iou_type][name] for iou_type in types for name in RETURNED}

    def pictures(self) -> dict[str, np.ndarray]:
        """Return the confusions of classes, by boxes, and the curves of precision that were evaluated last."""
        if not self.scores:
            return {}
        classes = list(self.dataset_meta["classes"])
        confusion = count_confusions(self.evaluated, len(classes))
        curves = {f"{t}_precision": draw_curves(s.precision, classes, t) for t, s in self.scores.items()}
        return {"confusion": draw_confusion(confusion, [*classes, "background"]), **curves}

    def _types(self) -> Sequence[str]:
        found = any(record.found.masks is not None for record in self.evaluated)
        true = all(record.truth.masks is not None for record in self.evaluated)
        if self.iou_types is None:
            if found and not true:
                self._warn("masks are predicted but not scored: the dataset gives none. Set masks=True in its config")
            return IOU_TYPES if found and true else IOU_TYPES[:1]
        if "segm" in self.iou_types and not (found and true):
            missing = "the model predicts" if not found else "the dataset gives (masks=True in its config)"
            raise ConfigError(f"CocoMetric: iou_types has 'segm', which needs masks, but {missing} none")
        return self.iou_types

    def _print(self, means: dict[str, dict[str, float]]) -> None:
        classes = self.dataset_meta["classes"]
        counts = np.zeros(len(classes), dtype=int)
        for record in self.evaluated:
            counts += np.bincount(record.truth.labels[~record.truth.crowd], minlength=len(classes))
        found = sum(len(record.found.scores) for record in self.evaluated)
        if not counts.sum():
            self._warn("there is no object to find, so AP and AR are undefined (NaN)")
        elif not found:
            self._warn("no object was found in any image, so AP and AR are 0")
        columns = [f"{iou_type} {name} %" for iou_type in means for name in ("AP", "AP50")]
        values = [s.of_classes() for s in self.scores.values()]
        rows = [
            (name, *(100 * value for pair in pairs for value in pair), int(count))
            for name, count, *pairs in zip(classes, counts, *values, strict=True)
        ]
        print_table("classes", ["class", *columns, "objects"], rows)
        names = next(iter(means.values()))
        print_table(
            f"{len(self.evaluated)} images, {found} objects found, {counts.sum()} there",
            ["%", *names],
            [(iou_type, *(100 * value for value in numbers.values())) for iou_type, numbers in means.items()],
        )

    def _warn(self, message: str) -> None:
        MMLogger.get_current_instance().warning(message)

    def _class_count(self) -> int:
        return len(self.dataset_meta["classes"])


def _found(prediction: DetPrediction) -> Found:
    return Found(
        boxes=xywh(prediction.boxes),
        labels=prediction.labels.cpu().numpy(),
        scores=prediction.scores.double().cpu().numpy(),
        masks=prediction.masks,
    )
