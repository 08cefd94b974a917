"""Average precision and recall as pycocotools computes them."""

import contextlib
import copy
import dataclasses
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchvision.tv_tensors import BoundingBoxes, Mask

from densevit.errors import ConfigError, DataError
from densevit.structures import BoxTarget, Meta, Sample
from densevit.tasks.detection.coco_eval import CocoScores
from densevit.tasks.detection.masks import encode_all, rasterise
from densevit.tasks.detection.metric import CocoMetric
from densevit.tasks.detection.metric_pictures import count_confusions
from densevit.tasks.detection.prediction import DetPrediction

REAL = Path(__file__).parents[3] / "shared/data/tiny_coco/annotations/instances_val2017.json"
CLASSES = ["a", "b", "c", "none of it"]
CATEGORY_IDS = [3, 5, 9, 90]
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl")
Pair = tuple[Sample, DetPrediction]
IMAGE = torch.zeros(3, 1, 1, dtype=torch.uint8)


def rectangles(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The masks ``(n, H, W)`` of boxes without a corner."""
    masks = np.zeros((len(boxes), *size), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)] = 1
        mask[y1 : (y1 + y2) // 2, x1 : (x1 + x2) // 2] = 0
    return masks


def pair(
    index: int, boxes: np.ndarray, labels: np.ndarray, crowd: np.ndarray, found: tuple[np.ndarray, ...], masks: bool
) -> Pair:
    size = (240, 320)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    target = BoxTarget(
        boxes=BoundingBoxes(torch.from_numpy(boxes), format="XYXY", canvas_size=size),
        labels=torch.from_numpy(labels),
        crowd=torch.from_numpy(crowd),
        area=torch.from_numpy(areas),
        masks=Mask(torch.from_numpy(rectangles(boxes, size))) if masks else None,
        image_id=torch.tensor(1000 - index),
    )
    found_boxes, scores, found_labels = found
    runs = encode_all(rectangles(found_boxes, size)) if masks else None
    prediction = DetPrediction(*map(torch.from_numpy, (found_boxes, scores, found_labels)), size, runs)
    return Sample(IMAGE, target, Meta(str(index), size, size)), prediction


def pairs(count: int, most: int = 12, masks: bool = True) -> list[Pair]:
    """Images with and without objects, crowds and predictions; predictions of equal scores, up to ``most`` for one."""
    rng, made = np.random.default_rng(0), []
    for index in range(count):
        n = 0 if index % 5 == 0 else int(rng.integers(1, 9))
        start = rng.random((n, 2)) * (200, 120)
        boxes = np.concatenate([start, start + 8 + rng.random((n, 2)) ** 2 * 110], 1).astype(np.float32)
        labels, crowd = rng.integers(0, 3, n), rng.random(n) < 0.15
        m = 0 if index % 7 == 0 else int(rng.integers(1, most))
        near = boxes[rng.integers(0, n, m)] if n else np.tile(np.float32([20, 20, 90, 90]), (m, 1))
        moved = np.sort((near + rng.normal(0, 4, (m, 4))).clip(0, 230).reshape(m, 2, 2), axis=1).reshape(m, 4)
        scores = np.sort(rng.integers(1, 11, m) / 10)[::-1].copy()
        found = (moved.astype(np.float32), scores.astype(np.float32), rng.integers(0, 3, m))
        made.append(pair(index, boxes, labels, crowd, found, masks))
    return made


def metric_of(data: list[Pair], batch_size: int = 3, **options: Any) -> CocoMetric:
    metric = CocoMetric(**options)
    metric.dataset_meta = {"classes": CLASSES, "category_ids": CATEGORY_IDS}
    for start in range(0, len(data), batch_size):
        samples, predictions = zip(*data[start : start + batch_size], strict=True)
        metric.process(samples, predictions)
    return metric


def xywh(boxes: Tensor) -> list[list[float]]:
    corners = boxes.as_subclass(Tensor).double()
    return torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).tolist()


def as_json(data: list[Pair]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Truth and predictions as files of COCO hold them."""
    truth, found = [], []
    for sample, prediction in data:
        target = sample.target
        runs = encode_all(target.masks.numpy()) if target.masks is not None else None
        for i, box in enumerate(xywh(target.boxes)):
            entry = {
                "id": len(truth) + 1,
                "image_id": int(target.image_id),
                "category_id": CATEGORY_IDS[target.labels[i]],
                "bbox": box,
                "area": float(target.area[i]),
                "iscrowd": int(target.crowd[i]),
            }
            truth.append({**entry, "segmentation": runs[i]} if runs else entry)
        for i, box in enumerate(xywh(prediction.boxes)):
            entry = {
                "image_id": int(target.image_id),
                "category_id": CATEGORY_IDS[prediction.labels[i]],
                "bbox": box,
                "score": float(prediction.scores[i]),
            }
            found.append({**entry, "segmentation": prediction.masks[i]} if prediction.masks is not None else entry)
    images = [{"id": int(s.target.image_id), "height": 240, "width": 320} for s, _ in data]
    categories = [{"id": i, "name": str(i)} for i in CATEGORY_IDS]
    return {"images": images, "annotations": truth, "categories": categories}, found


def by_pycocotools(truth: dict[str, Any], found: list[dict[str, Any]], iou_type: str, most: int = 100) -> CocoScores:
    if iou_type == "segm":
        found = [{key: value for key, value in entry.items() if key != "bbox"} for entry in found]
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = copy.deepcopy(truth)
        api.createIndex()
        run = COCOeval(api, api.loadRes(copy.deepcopy(found)), iou_type)
        run.params.maxDets = [1, 10, most]
        run.evaluate()
        run.accumulate()
        if most == 100:
            run.summarize()
            scores = CocoScores(run.eval["precision"], run.eval["recall"])
            assert [scores.means()[name] for name in NAMES] == pytest.approx(
                [math.nan if value == -1 else value for value in run.stats], abs=1e-12, nan_ok=True
            )
    return CocoScores(run.eval["precision"], run.eval["recall"])


def assert_equal(scores: CocoScores, expected: CocoScores) -> None:
    assert np.abs(scores.precision - expected.precision).max() <= 1e-9
    assert np.abs(scores.recall - expected.recall).max() <= 1e-9
    assert scores.means() == pytest.approx(expected.means(), abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("most", [12, 180])
def test_all_numbers_equal_those_of_pycocotools(iou_type: str, most: int) -> None:
    data = pairs(24, most)
    metric = metric_of(data)
    numbers = metric.evaluate(len(data))
    expected = by_pycocotools(*as_json(data), iou_type)
    assert_equal(metric.scores[iou_type], expected)
    assert numbers[f"{iou_type}_AP"] == pytest.approx(expected.means()["AP"], abs=1e-9)
    assert 0.01 < numbers[f"{iou_type}_AP"] < 0.9


@pytest.mark.parametrize("most", [20, 150])
def test_precision_and_recall_count_as_many_objects_as_they_are_told(most: int) -> None:
    data = pairs(12, 500, masks=False)
    metric = metric_of(data, max_per_image=most)
    metric.evaluate(len(data))
    assert_equal(metric.scores["bbox"], by_pycocotools(*as_json(data), "bbox", most))
    other = metric_of(data, max_per_image=most // 5)
    assert other.evaluate(len(data))["bbox_AP"] != metric.scores["bbox"].means()["AP"]


@pytest.mark.skipif(not REAL.exists(), reason="tiny COCO is not beside the repository")
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_on_real_images_all_numbers_equal_those_of_pycocotools(iou_type: str) -> None:
    truth = json.loads(REAL.read_text())
    categories = sorted(category["id"] for category in truth["categories"])
    metric = CocoMetric()
    metric.dataset_meta = {"classes": [str(i) for i in categories], "category_ids": categories}
    found = []
    rng = np.random.default_rng(0)
    for image in truth["images"]:
        annotations = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        sample, prediction = perturbed(image, annotations, categories, rng)
        metric.process([sample], [prediction])
        for i, box in enumerate(xywh(prediction.boxes)):
            entry = {"image_id": image["id"], "bbox": box, "score": float(prediction.scores[i])}
            entry |= {"category_id": categories[prediction.labels[i]], "segmentation": prediction.masks[i]}  # type: ignore[index]
            found.append(entry)
    metric.evaluate(len(truth["images"]))
    assert_equal(metric.scores[iou_type], by_pycocotools(truth, found, iou_type))


def perturbed(
    image: dict[str, Any], annotations: list[dict[str, Any]], categories: list[int], rng: np.random.Generator
) -> Pair:
    """The truth of an image of a file, and the same objects moved a little as predictions."""
    size = image["height"], image["width"]
    boxes = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    n = len(annotations)
    masks = np.zeros((n, *size), np.uint8)
    for mask, annotation in zip(masks, annotations, strict=True):
        mask[:] = rasterise(annotation["segmentation"], *size)
    labels = torch.tensor([categories.index(a["category_id"]) for a in annotations], dtype=torch.int64)
    target = BoxTarget(
        boxes=torch.from_numpy(boxes.astype(np.float32)),
        labels=labels,
        crowd=torch.tensor([bool(a["iscrowd"]) for a in annotations], dtype=torch.bool),
        area=torch.tensor([a["area"] for a in annotations], dtype=torch.float32),
        masks=Mask(torch.from_numpy(masks)),
        image_id=torch.tensor(image["id"]),
    )
    moved = np.sort((boxes + rng.normal(0, 4, (n, 4))).reshape(n, 2, 2), axis=1).reshape(n, 4)
    scores = torch.from_numpy(rng.integers(1, 11, n) / 10).float()
    runs = encode_all(np.stack([np.roll(m, rng.integers(-4, 5, 2), (0, 1)) for m in masks])) if n else ()
    guess = torch.where(torch.from_numpy(rng.random(n) < 0.9), labels, torch.from_numpy(rng.integers(0, 80, n)))
    prediction = DetPrediction(torch.from_numpy(moved).float(), scores, guess, size, runs)
    return Sample(IMAGE, target, Meta("", size, size)), prediction


def _score_part(rank: int, world_size: int) -> tuple[dict[str, float], int]:
    metric = metric_of(pairs(17)[rank::world_size])
    return metric.evaluate(17), len(metric.evaluated)


@pytest.mark.parametrize("world_size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_number_of_processes_changes_no_bit(in_processes: Callable[..., list[Any]], world_size: int) -> None:
    found = in_processes(_score_part, world_size)
    alone = metric_of(pairs(17)).evaluate(17)
    assert all(repr(numbers) == repr(alone) for numbers, _ in found)
    assert [count for _, count in found] == [17] + [0] * (world_size - 1)


def test_images_that_a_sampler_repeats_count_once() -> None:
    data = pairs(10)
    assert metric_of([*data, *data[:3]]).evaluate(13) == pytest.approx(metric_of(data).evaluate(10), nan_ok=True)


def test_a_metric_can_be_used_again_from_nothing() -> None:
    data = pairs(8)
    metric = metric_of(data[:5])
    metric.evaluate(5)
    metric.process(*zip(*data[5:], strict=True))
    assert metric.evaluate(3) == pytest.approx(metric_of(data[5:]).evaluate(3), nan_ok=True)
    assert len(metric.evaluated) == 3


def test_images_are_kept_in_the_order_of_their_ids() -> None:
    metric = metric_of(pairs(8))
    metric.evaluate(8)
    assert [record.image_id for record in metric.evaluated] == list(range(993, 1001))


def test_without_predictions_all_numbers_are_0_and_without_objects_undefined(caplog: pytest.LogCaptureFixture) -> None:
    sample, prediction = pairs(2)[1]
    nothing = DetPrediction(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), (240, 320), ())
    empty = BoxTarget(
        boxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.int64),
        crowd=torch.zeros(0, dtype=torch.bool),
        area=torch.zeros(0),
        masks=Mask(torch.zeros(0, 240, 320, dtype=torch.uint8)),
        image_id=torch.tensor(4),
    )
    missed = metric_of([(sample, nothing)])
    assert {v for v in missed.evaluate(1).values() if not math.isnan(v)} == {0.0}
    for found in (nothing, prediction):
        metric = metric_of([(Sample(IMAGE, empty, sample.meta), found)])
        assert all(math.isnan(v) for v in metric.evaluate(1).values())
        assert {name: p.ndim for name, p in metric.pictures().items()} == dict.fromkeys(metric.pictures(), 3)
    assert missed.pictures().keys() == {"confusion", "bbox_precision", "segm_precision"}
    assert all(math.isnan(v) for v in metric_of([]).evaluate(0).values())


def test_what_is_scored_follows_what_is_predicted_or_the_config() -> None:
    both, boxes = pairs(6), pairs(6, masks=False)
    assert {name.split("_")[0] for name in metric_of(both).evaluate(6)} == {"bbox", "segm"}
    assert {name.split("_")[0] for name in metric_of(boxes).evaluate(6)} == {"bbox"}
    assert {name.split("_")[0] for name in metric_of(both, iou_types=["segm"]).evaluate(6)} == {"segm"}
    assert {name.split("_")[0] for name in metric_of(both, iou_types=["bbox"]).evaluate(6)} == {"bbox"}
    mixed = [(sample, prediction) for (sample, _), (_, prediction) in zip(boxes, both, strict=True)]
    assert {name.split("_")[0] for name in metric_of(mixed).evaluate(6)} == {"bbox"}
    for data, reason in ((boxes, "the model predicts none"), (mixed, "masks=True")):
        with pytest.raises(ConfigError, match=reason):
            metric_of(data, iou_types=["segm"]).evaluate(6)


@pytest.mark.parametrize(
    "options", [{"max_per_image": 0}, {"iou_types": ["box"]}, {"iou_types": []}, {"iou_types": "bbox"}]
)
def test_impossible_options_are_errors(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        CocoMetric(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (320, 240)}, r"1 is \(240, 320\)"),
        ({"labels": torch.full((1,), 4)}, "label 4, but there are 4 classes"),
    ],
)
def test_predictions_that_do_not_fit_their_image_are_errors(change: dict[str, Any], message: str) -> None:
    sample, prediction = pairs(2)[1]
    with pytest.raises(DataError, match=message):
        metric_of([(sample, dataclasses.replace(prediction, **change))])


def test_confusions_have_a_background() -> None:
    boxes = np.float32([[0, 0, 40, 40], [50, 0, 90, 40], [100, 0, 140, 40], [200, 100, 300, 200]])
    found = np.float32([[1, 0, 41, 40], [50, 2, 90, 42], [210, 110, 230, 130], [0, 200, 20, 220], [0, 0, 40, 40]])
    scores, labels = np.float32([0.9, 0.8, 0.7, 0.6, 0.2]), np.array([0, 2, 1, 1, 0])
    truth = pair(
        0, boxes, np.array([0, 1, 2, 0]), np.array([False, False, False, True]), (found, scores, labels), False
    )
    metric = metric_of([truth])
    metric.evaluate(1)
    matrix = count_confusions(metric.evaluated, 4)
    hits = {(0, 0): 1, (1, 2): 1, (2, 4): 1, (4, 1): 1}  # the third lies in a crowd, the last has too low a score
    assert {tuple(cell.tolist()): int(matrix[tuple(cell)]) for cell in matrix.nonzero()} == hits


def test_the_score_of_an_image_is_the_f1_of_its_objects() -> None:
    boxes = np.float32([[0, 0, 40, 40], [100, 0, 140, 40], [200, 0, 240, 40]])
    true = (boxes, np.array([0, 1, 2]), np.array([False] * 3))
    found = (boxes[:2], np.float32([0.9, 0.8]), np.array([0, 2]))  # one right, one of another class, one missed
    nothing = (boxes[:0], np.float32([]), np.array([], dtype=np.int64))
    metric = metric_of([pair(0, *true, found, False), pair(1, *nothing[::2], np.array([], bool), nothing, False)])
    assert metric.batch_scores[0] == pytest.approx(2 * 1 / (3 + 2))
    assert math.isnan(metric.batch_scores[1])


def test_a_match_of_the_same_class_goes_before_a_better_one_of_another() -> None:
    boxes = np.float32([[0, 0, 40, 40], [2, 0, 42, 40]])
    found = np.float32([[0, 0, 40, 40], [2, 0, 42, 40]])
    swapped = (found, np.float32([0.9, 0.8]), np.array([1, 0]))
    metric = metric_of([pair(0, boxes, np.array([0, 1]), np.array([False, False]), swapped, False)])
    metric.evaluate(1)
    assert count_confusions(metric.evaluated, 4).diagonal().tolist() == [1, 1, 0, 0, 0]
