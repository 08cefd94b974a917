"""Files of COCO results are written and read, and scored as what was found."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.tv_tensors import Mask

from densevit.errors import DataError
from densevit.structures import BoxTarget, Meta, Sample
from densevit.tasks.detection.masks import encode_all
from densevit.tasks.detection.metric import CocoMetric
from densevit.tasks.detection.prediction import DetPrediction

SIZE = (120, 160)
Pair = tuple[Sample, DetPrediction]


def ellipses(boxes: np.ndarray) -> np.ndarray:
    """The masks ``(n, H, W)`` of what fills boxes with rounded corners."""
    x, y = (boxes[:, i::2].mean(1)[:, None, None] for i in (0, 1))
    width, height = (np.diff(boxes[:, i::2])[:, :, None] / 2 + 0.1 for i in (0, 1))
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    inside: np.ndarray = ((columns + 0.5 - x) / width) ** 2 + ((rows + 0.5 - y) / height) ** 2 < 1
    return inside.astype(np.uint8)


def pairs(count: int, masks: bool = True) -> list[Pair]:
    """Images of five objects, and the same moved a little as predictions; none in the first image."""
    rng, made = np.random.default_rng(0), []
    for index in range(count):
        start = rng.random((5, 2)) * (100, 60)
        boxes = np.concatenate([start, start + 15 + rng.random((5, 2)) * 40], axis=1).astype(np.float32)
        labels, moved = rng.integers(0, 2, 5), (boxes + rng.normal(0, 2, (5, 4))).astype(np.float32)
        target = BoxTarget(
            boxes=torch.from_numpy(boxes),
            labels=torch.from_numpy(labels),
            crowd=torch.zeros(5, dtype=torch.bool),
            area=torch.from_numpy((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)),
            masks=Mask(torch.from_numpy(ellipses(boxes))) if masks else None,
            image_id=torch.tensor(1000 - index),
        )
        kept, scores = slice(0, 5 if index else 0), rng.random(5, dtype=np.float32)
        found = (torch.from_numpy(values[kept]) for values in (moved, scores, labels))
        prediction = DetPrediction(*found, SIZE, encode_all(ellipses(moved[kept])) if masks else None)
        made.append((Sample(torch.zeros(3, 1, 1), target, Meta(str(index), SIZE, SIZE)), prediction))
    return made


def metric_of(data: list[Pair]) -> CocoMetric:
    metric = CocoMetric()
    metric.dataset_meta = {"classes": ["a", "b"], "category_ids": [3, 9]}
    for sample, prediction in data:
        metric.process([sample], [prediction])
    return metric


class Targets:
    """A dataset of which only the targets are read."""

    def __init__(self, data: list[Pair]) -> None:
        self.targets = [sample.target for sample, _ in data]

    def __len__(self) -> int:
        return len(self.targets)

    def read_target(self, index: int) -> BoxTarget:
        return self.targets[index]


@pytest.mark.parametrize("masks", [True, False])
def test_results_that_are_written_score_the_same_when_read(tmp_path: Path, masks: bool) -> None:
    data = pairs(17, masks=masks)
    metric = metric_of(data)
    numbers = metric.evaluate(17)
    path = metric.write(tmp_path / "out")
    assert path.name == "coco_detections.json"
    other = metric_of([])
    other.read(path, Targets(data))
    assert repr(other.evaluate(17)) == repr(numbers)
    assert 0.2 < numbers["bbox_AP"] < 0.95
    assert {entry["category_id"] for entry in json.loads(path.read_text())} == {3, 9}


def test_results_without_boxes_take_those_of_the_masks(tmp_path: Path) -> None:
    data = pairs(17)
    metric = metric_of(data)
    numbers = metric.evaluate(17)
    entries = json.loads(metric.write(tmp_path).read_text())
    (tmp_path / "masks.json").write_text(json.dumps([{k: v for k, v in e.items() if k != "bbox"} for e in entries]))
    metric.read(tmp_path / "masks.json", Targets(data))
    again = metric.evaluate(17)
    assert again["segm_AP"] == numbers["segm_AP"]
    assert again["bbox_AP"] == pytest.approx(numbers["bbox_AP"], abs=0.1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_id": 5}, "has the image_id 5, which the dataset does not have"),
        ({"image_id": "5"}, "has a image_id that is no whole number"),
        ({"category_id": 4}, "has the category_id 4, but the dataset has 3, 9"),
        ({"score": "high"}, "has a score that is no finite number"),
        ({"score": math.nan}, "has a score that is no finite number"),
        ({"score": None}, "has a score that is no finite number"),
        ({"bbox": [1, 2, 3]}, r"has a bbox that is not \[x, y, width, height\]"),
        ({"bbox": [1, 2, 3, -4]}, r"has a bbox that is not \[x, y, width, height\]"),
        ({"segmentation": {"size": [24, 32], "counts": "T3d0X"}}, "damaged"),
        ({"segmentation": {"size": [24, 32], "counts": [768]}}, r"has a segmentation of size \[24, 32\]"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6]]}, "has a segmentation that is not {size, counts}"),
        ({"score": ...}, "has no 'score'"),
        ({"category_id": ...}, "has no 'category_id'"),
        ({"segmentation": ...}, "has no segmentation, unlike entry 0"),
    ],
)
def test_a_wrong_entry_is_named_with_its_file(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    data = pairs(17)
    metric = metric_of(data)
    metric.evaluate(17)
    path = metric.write(tmp_path)
    entries = json.loads(path.read_text())
    changed = {**entries[7], **change}
    entries[7] = {key: value for key, value in changed.items() if value is not ...}
    path.write_text(json.dumps(entries))
    with pytest.raises(DataError, match=rf"coco_detections\.json: entry 7 .*{reason}"):
        metric.read(path, Targets(data))


@pytest.mark.parametrize("content", ["", "{}", '["a"]', "[[]]", "[3]"])
def test_a_file_of_something_else_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"other\.json: "):
        metric_of([]).read(path, Targets(pairs(2)))
