"""What goes into the graph of a detector finds what the detector finds."""

from typing import Any

import pytest
import torch
from torch import Tensor

from densevit.api import create_model
from densevit.model import DenseModel
from densevit.structures import Meta
from densevit.tasks.detection.batch_suppression import best_places, suppress

TWO_STAGES = {"rpn_channels": 16, "fc_channels": 16, "mask_channels": 16, "mask_convs": 1}
HEADS: dict[str, dict[str, Any]] = {
    "retina": {"type": "RetinaHead", "channels": 16, "num_convs": 1},
    "mask_rcnn": {"type": "MaskRCNNHead", **TWO_STAGES},
    "boxes_only": {"type": "MaskRCNNHead", **TWO_STAGES, "mask_convs": None},
    "class_agnostic": {"type": "MaskRCNNHead", **TWO_STAGES, "class_agnostic": True, "class_agnostic_mask": True},
    "cascade": {"type": "CascadeMaskRCNNHead", **TWO_STAGES, "box_convs": 1},
}
SIZE = (64, 96)


def detector(name: str) -> DenseModel:
    """Return a tiny detector whose scores and boxes vary."""
    torch.manual_seed(0)
    backbone = {"dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
    head = {**HEADS[name], "max_per_image": 20}
    neck = {"type": "FPN", "out_channels": 8, "start_level": int(name == "retina"), "num_outs": 4}
    task = "detection" if name == "retina" else "instance_segmentation"
    model = create_model("MiT", task, num_classes=3, head=head, neck=neck, **backbone)
    with torch.no_grad():
        for key, value in model.head.named_parameters():
            if any(part in key for part in ("retina_", "rpn_cls", "rpn_reg", "fc_cls", "fc_reg", "conv_logits")):
                value.normal_(std=0.3)
    return model.eval()


@pytest.mark.parametrize("name", HEADS)
def test_a_batch_gives_the_objects_of_each_image(name: str) -> None:
    model, x = detector(name), torch.randn(2, 3, *SIZE)
    for least in (0.0, 0.4, 0.999):
        model.head.score_threshold = least
        with torch.no_grad():
            outputs = model.network(x)
            expected = model.head.predict(outputs, [Meta("", SIZE, SIZE)] * 2)
            found = model.head.export(outputs, SIZE)
        assert found["boxes"].shape == (2, 20, 4)
        assert ("masks" in found) == (expected[0].masks is not None)
        assert found["count"].tolist() == [len(each.scores) for each in expected]
        assert bool(found["count"].any()) == (least < 0.9)
        for i, each in enumerate(expected):
            n = len(each.scores)
            torch.testing.assert_close(found["scores"][i, :n], each.scores)
            torch.testing.assert_close(found["boxes"][i, :n], each.boxes)
            assert torch.equal(found["labels"][i, :n], each.labels)
            assert all(not value[i, n:].any() for name, value in found.items() if name != "count")


def test_masks_are_those_of_the_boxes() -> None:
    model = detector("mask_rcnn")
    with torch.no_grad():
        outputs = model.network(torch.randn(2, 3, *SIZE))
        found = model.head.export(outputs, SIZE)
        expected = model.head.masks(outputs, list(found["boxes"]), list(found["labels"]))
    torch.testing.assert_close(found["masks"], torch.stack(expected))


def box(x: float, y: float) -> list[float]:
    return [x, y, x + 10.0, y + 10.0]


def suppressed(boxes: list[list[list[float]]], scores: list[list[float]], labels: list[list[int]]) -> list[Tensor]:
    arguments = (torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels))
    return list(suppress(*arguments, size=(50, 50), iou=0.5, limit=2))


def test_boxes_are_suppressed_within_their_image_and_label_only() -> None:
    same = [box(0.0, 0.0), box(1.0, 0.0), box(0.0, 1.0)]
    boxes, scores, labels = suppressed([same, same], [[0.5, 0.9, 0.8], [0.3, 0.2, 0.1]], [[1, 0, 0], [70, 6, 70]])
    assert torch.equal(scores, torch.tensor([[0.9, 0.5], [0.3, 0.2]]))
    assert labels.tolist() == [[0, 1], [70, 6]]
    assert boxes[0].tolist() == [box(1.0, 0.0), box(0.0, 0.0)]


def test_what_is_no_box_suppresses_nothing_and_leaves_places_free() -> None:
    free = float("-inf")
    _, scores, _ = suppressed([[box(0.0, 0.0)] * 3] * 2, [[free, 0.2, free], [free] * 3], [[0, 0, 0]] * 2)
    assert scores[0].tolist() == pytest.approx([0.2, free])
    assert scores[1].tolist() == [free, free]


def test_fewer_scores_than_asked_for_leave_places_free() -> None:
    values, places = best_places(torch.tensor([[1.0, 3.0]]), 3)
    assert values.tolist() == [[3.0, 1.0, float("-inf")]]
    assert places[0, :2].tolist() == [1, 0]
