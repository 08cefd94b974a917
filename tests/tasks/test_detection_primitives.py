import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou, sigmoid_focal_loss

from densevit.errors import ConfigError
from densevit.features import FeatureSpec
from densevit.tasks.detection import matching
from densevit.tasks.detection.anchors import Anchors, octave_scales
from densevit.tasks.detection.box_coder import MAX_LOG, decode, encode
from densevit.tasks.detection.focal_loss import background_focal_loss, focal_loss
from densevit.tasks.detection.matching import BACKGROUND, CHUNK, IGNORED, match

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "detection" / "primitives.json").read_text())
STRIDES = {"maskrcnn": (4, 8, 16, 32, 64), "retinanet": (8, 16, 32, 64, 128)}
SCALES = {"maskrcnn": [8.0], "retinanet": octave_scales(4, 3)}
RATIOS = (0.5, 1.0, 2.0)
STDS = {"rpn": (1.0, 1.0, 1.0, 1.0), "roi": (0.1, 0.1, 0.2, 0.2)}
THRESHOLDS = {"rpn": (0.7, 0.3, 0.3), "retina": (0.5, 0.4, 0.0), "rcnn_mask": (0.5, 0.5, 0.5)}


def anchors(kind: str) -> Anchors:
    return Anchors(tuple(FeatureSpec(8, (s, s)) for s in STRIDES[kind]), SCALES[kind], RATIOS)


def assert_near(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())


@pytest.mark.parametrize("kind", STRIDES)
def test_anchors_equal_mmdetections(kind: str) -> None:
    golden, ours = GOLDEN["anchors"][kind], anchors(kind)
    for level, cell in enumerate(golden["base"].values() if isinstance(golden["base"], dict) else golden["base"]):
        assert_near(ours.of_cell(level), torch.tensor(cell))
    for found, expected in zip(ours(golden["feature_hw"], torch.device("cpu")), golden["levels"], strict=True):
        assert len(found) == expected["n"]
        assert_near(found[:4], torch.tensor(expected["first4"])[: len(found)])
        assert_near(found[-1], torch.tensor(expected["last"]))


def test_anchors_of_a_level_are_those_of_detectron2_in_another_order() -> None:
    for level, cell in enumerate(GOLDEN["d2"]["retinanet"].values()):
        ours = anchors("retinanet").of_cell(level)
        by_scale = ours.view(3, 3, 4).transpose(0, 1).reshape(-1, 4)
        assert_near(by_scale, torch.tensor(cell))


def test_anchors_follow_strides_that_differ_by_axis() -> None:
    (level,) = Anchors((FeatureSpec(8, (4, 8)),), [2.0], [1.0])([(2, 3)], torch.device("cpu"))
    centres = (level[:, :2] + level[:, 2:]) / 2
    assert centres.tolist() == [[x, y] for y in (0, 4) for x in (0, 8, 16)]
    assert (level[0, 2:] - level[0, :2]).tolist() == [16, 8]


@pytest.mark.parametrize(("scales", "ratios"), [([], [1.0]), ([1.0], []), ([0.0], [1.0]), ([1.0], [-1.0])])
def test_anchors_without_a_size_are_refused(scales: list[float], ratios: list[float]) -> None:
    with pytest.raises(ConfigError, match="must be a list of positive numbers"):
        Anchors((FeatureSpec(8, (4, 4)),), scales, ratios)


@pytest.mark.parametrize("kind", STDS)
def test_boxes_are_coded_as_in_mmdetection_and_detectron2(kind: str) -> None:
    golden, other = GOLDEN["coder"][kind], GOLDEN["d2"]["coder"][kind]
    source, target, deltas = (torch.tensor(golden[name]) for name in ("src", "tgt", "deltas"))
    assert_near(encode(source, target, STDS[kind]), deltas)
    assert_near(encode(source, target, STDS[kind]), torch.tensor(other["deltas"]))
    assert_near(decode(source, 3 * deltas, STDS[kind]), torch.tensor(golden["decoded_3x"]))
    assert_near(decode(source, 3 * deltas, STDS[kind]), torch.tensor(other["applied"]))
    assert_near(decode(source, deltas, STDS[kind]), target)


def test_a_decoded_box_cannot_explode() -> None:
    box = decode(torch.tensor([[0.0, 0.0, 16.0, 16.0]]), torch.tensor([[0.0, 0.0, 99.0, -99.0]]), STDS["rpn"])
    assert_near(box[0, 2] - box[0, 0], torch.tensor(1000.0))
    assert_near(box[0, 3] - box[0, 1], torch.tensor(16.0 * np.exp(-MAX_LOG)).float())


@pytest.mark.parametrize("kind", THRESHOLDS)
def test_boxes_are_matched_as_in_mmdetection(kind: str) -> None:
    rng = np.random.default_rng(5)
    corner, side = rng.uniform(0, 100, (40, 2)), rng.uniform(10, 60, (40, 2))
    boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
    objects = boxes[[3, 17, 30]] + rng.normal(0, 4, (3, 4)).astype(np.float32)
    positive, negative, rescue = THRESHOLDS[kind]
    found = match(torch.tensor(boxes), torch.tensor(objects), positive, negative, rescue)
    code = {BACKGROUND: 0, IGNORED: -1}  # of mmdetection, where objects count from 1
    assert [code.get(i, i + 1) for i in found.tolist()] == GOLDEN["assign"][kind]["gt_inds"]


def test_no_box_is_rescued_for_an_object_that_none_overlaps() -> None:
    boxes, objects = torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[9.0, 9.0, 12.0, 12.0]])
    assert match(boxes, objects, 0.5, 0.4, rescue=0.0).tolist() == [BACKGROUND]
    assert match(boxes, objects[:0], 0.5, 0.4, rescue=0.0).tolist() == [BACKGROUND]


def test_of_two_objects_that_share_their_best_box_the_later_gets_it() -> None:
    boxes, objects = (
        torch.tensor([[0.0, 0.0, 10.0, 10.0]]),
        torch.tensor([[0.0, 0.0, 10.0, 8.0], [0.0, 0.0, 10.0, 4.0]]),
    )
    assert match(boxes, objects, 0.5, 0.4).tolist() == [0]
    assert match(boxes, objects, 0.5, 0.4, rescue=0.3).tolist() == [1]


def test_many_objects_are_compared_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []

    def counted(objects: Tensor, boxes: Tensor) -> Tensor:
        counts.append(len(objects))
        return box_iou(objects, boxes)

    monkeypatch.setattr(matching, "box_iou", counted)
    objects = 10.0 * torch.arange(2 * CHUNK + 1)[:, None] + torch.tensor([0.0, 0.0, 10.0, 10.0])
    assert match(objects.flip(0), objects, 0.5, 0.4, rescue=0.0).tolist() == list(range(len(objects)))[::-1]
    assert counts == [CHUNK, CHUNK, 1]


def test_focal_loss_equals_mmdetections() -> None:
    rng = np.random.default_rng(7)
    logits = torch.tensor(rng.standard_normal((20, 5)).astype(np.float32))
    labels = torch.tensor(rng.integers(0, 6, 20))
    truth = torch.nn.functional.one_hot(labels, 6)[:, :5].float()
    assert_near(focal_loss(logits, truth).sum() / 7, torch.tensor(GOLDEN["focal"]))


@pytest.mark.parametrize("gamma", [2.0, 1.5, 0.0])
def test_focal_loss_and_its_gradient_equal_torchvisions(gamma: float) -> None:
    torch.manual_seed(0)
    logits, truth = (
        (6 * torch.randn(30, 4, dtype=torch.float64)).requires_grad_(),
        torch.randint(0, 2, (30, 4)).double(),
    )
    expected = sigmoid_focal_loss(logits, truth, alpha=0.25, gamma=gamma)
    torch.testing.assert_close(focal_loss(logits, truth, 0.25, gamma), expected)
    (gradient,) = torch.autograd.grad(sigmoid_focal_loss(logits, 0 * truth, 0.25, gamma).sum(), logits)
    loss = background_focal_loss(logits, 0.25, gamma)
    torch.testing.assert_close(loss, sigmoid_focal_loss(logits, 0 * truth, 0.25, gamma).sum())
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], gradient)
