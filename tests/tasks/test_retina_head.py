from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou, sigmoid_focal_loss

from densevit.errors import ConfigError
from densevit.features import Features, FeatureSpec
from densevit.structures import BoxTarget, Meta, Sample
from densevit.tasks.detection.anchors import DenseOutputs
from densevit.tasks.detection.box_coder import decode, encode
from densevit.tasks.detection.head import View
from densevit.tasks.detection.retina_head import RetinaHead

SPECS = (FeatureSpec(6, (8, 8)), FeatureSpec(6, (16, 16)))
SIZE = (48, 64)
OBJECTS = [[[4.0, 6.0, 30.0, 40.0], [20.0, 10.0, 44.0, 30.0], [0.0, 0.0, 64.0, 48.0]], []]


def head(**options: Any) -> RetinaHead:
    torch.manual_seed(0)
    made = RetinaHead(SPECS, **{"num_classes": 3, "channels": 6, "num_convs": 1, "anchor_scale": 2.0, **options})
    with torch.no_grad():  # so that it finds something
        for layer, scale in ((made.cls_convs[0].conv, 10), (made.retina_cls, 100), (made.retina_reg, 30)):
            layer.weight *= scale
        made.retina_cls.bias += 3
    return made


def outputs(head: RetinaHead, batch: int = 2) -> DenseOutputs:
    torch.manual_seed(1)
    maps = tuple(torch.randn(batch, 6, *(-(-n // s) for n, s in zip(SIZE, spec.stride, strict=True))) for spec in SPECS)
    return head(Features(maps))


def sample(boxes: list[list[float]], size: tuple[int, int] = SIZE, input_size: tuple[int, int] = SIZE) -> Sample:
    count = len(boxes)
    target = BoxTarget(
        boxes=torch.tensor(boxes).view(-1, 4),
        labels=torch.arange(count) % 3,
        crowd=torch.tensor([i == 2 for i in range(count)], dtype=torch.bool),
        area=torch.ones(count),
        masks=None,
        image_id=torch.tensor(7),
    )
    return Sample(torch.zeros(3, *input_size, dtype=torch.uint8), target, Meta("x.jpg", size, input_size))


def flat(maps: list[Tensor], width: int) -> Tensor:
    """Return ``(N, all anchors, width)`` the slow way."""
    return torch.cat([x.permute(0, 2, 3, 1).reshape(len(x), -1, width) for x in maps], dim=1)


def plain_loss(head: RetinaHead, out: DenseOutputs, samples: list[Sample]) -> tuple[Tensor, Tensor]:
    """Compute what RetinaNet's paper and mmdetection's recipe say, anchor by anchor."""
    logits, deltas = flat(out.logits, 3), flat(out.deltas, 4)
    anchors = torch.cat(head.anchors([x.shape[2:] for x in out.logits], torch.device("cpu")))
    loss_cls, loss_bbox, count = torch.zeros(()), torch.zeros(()), 0
    for i, each in enumerate(samples):
        boxes, labels = each.target.boxes[~each.target.crowd], each.target.labels[~each.target.crowd]
        truth, positive, ignored = torch.zeros_like(logits[i]), {}, set()
        ious = box_iou(anchors, boxes) if len(boxes) else torch.zeros(len(anchors), 1)
        for a, row in enumerate(ious):
            if row.max() >= 0.5:
                positive[a] = int(row.argmax())
            elif row.max() >= 0.4:
                ignored.add(a)
        for j in range(len(boxes)):
            for a in (ious[:, j] == ious[:, j].max()).nonzero()[:, 0].tolist():
                positive[a] = j
        for a, j in positive.items():
            truth[a, labels[j]] = 1
            loss_bbox = (
                loss_bbox + (deltas[i, a] - encode(anchors[a][None], boxes[j][None], (1, 1, 1, 1))[0]).abs().sum()
            )
        kept = [a for a in range(len(anchors)) if a in positive or a not in ignored]
        loss_cls = loss_cls + sigmoid_focal_loss(logits[i, kept], truth[kept], reduction="sum")
        count += max(1, len(positive))
    return loss_cls / count, loss_bbox / count


def test_the_loss_is_that_of_every_anchor() -> None:
    retina = head()
    out, samples = outputs(retina), [sample(boxes) for boxes in OBJECTS]
    losses = retina.loss(out, samples)
    loss_cls, loss_bbox = plain_loss(retina, out, samples)
    torch.testing.assert_close(losses["loss_cls"], loss_cls)
    torch.testing.assert_close(losses["loss_bbox"], loss_bbox)
    assert loss_bbox > 0


def test_gradients_are_those_of_every_anchor() -> None:
    retina = head()
    samples, gradients = [sample(boxes) for boxes in OBJECTS], []
    for loss in (lambda out: retina.loss(out, samples).values(), lambda out: plain_loss(retina, out, samples)):
        retina.zero_grad()
        sum(loss(outputs(retina)), torch.zeros(())).backward()
        gradients.append([p.grad.clone() for p in retina.parameters() if p.grad is not None])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6 * b.abs().max().item())


def test_a_batch_without_objects_trains() -> None:
    retina = head()
    losses = retina.loss(outputs(retina), [sample([]), sample([])])
    assert losses["loss_bbox"] == 0
    assert 0 < losses["loss_cls"] < float("inf")
    sum(losses.values(), torch.zeros(())).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in retina.parameters())


def test_in_evaluation_targets_have_the_size_of_the_file() -> None:
    retina = head().eval()
    small = sample(OBJECTS[0])
    large = sample([[2 * x for x in box] for box in OBJECTS[0]], size=(96, 128))
    expected = retina.train().loss(outputs(retina, 1), [small])
    for name, loss in retina.eval().loss(outputs(retina, 1), [large]).items():
        torch.testing.assert_close(loss, expected[name])


def test_candidates_are_those_above_the_threshold_by_class() -> None:
    retina = head(score_threshold=0.3, max_per_level=10_000)
    out = outputs(retina)
    anchors = torch.cat(retina.anchors([x.shape[2:] for x in out.logits], torch.device("cpu")))
    for i, found in enumerate(retina.candidates(out, [SIZE, SIZE])):
        scores = flat(out.logits, 3)[i].sigmoid()
        place, label = (scores > 0.3).nonzero(as_tuple=True)
        boxes = decode(anchors[place], flat(out.deltas, 4)[i, place], (1, 1, 1, 1))
        boxes = boxes.clamp(min=0).minimum(torch.tensor([64.0, 48.0, 64.0, 48.0]))
        ours, theirs = found.scores.sort().indices, scores[place, label].sort().indices
        assert len(found.scores) == len(place) > 10
        torch.testing.assert_close(found.scores[ours], scores[place, label][theirs])
        torch.testing.assert_close(found.boxes[ours], boxes[theirs])
        assert torch.equal(found.labels[ours], label[theirs])


def test_a_level_gives_its_best_candidates() -> None:
    retina = head(max_per_level=7, score_threshold=0.0)
    (found,) = retina.candidates(outputs(retina, 1), [SIZE])
    assert len(found.scores) == 14
    (everything,) = head(max_per_level=10_000, score_threshold=0.0).candidates(outputs(retina, 1), [SIZE])
    assert found.scores.max() == everything.scores.max()


def test_predictions_have_the_size_of_the_file() -> None:
    retina = head(score_threshold=0.3).eval()
    metas = [Meta("a", SIZE, SIZE), Meta("b", (96, 128), SIZE)]
    out = outputs(retina, 1)
    twice = DenseOutputs(*([x.repeat(2, 1, 1, 1) for x in maps] for maps in out))
    one, other = retina.predict(twice, metas)
    torch.testing.assert_close(2 * one.boxes, other.boxes)
    assert torch.equal(one.scores, other.scores)
    assert one.masks is None
    assert (one.scores.diff() <= 0).all()


def test_of_two_boxes_of_a_class_the_better_stays() -> None:
    retina = head(score_threshold=0.3, nms_iou=0.4).eval()
    (found,) = retina.predict(outputs(retina, 1), [Meta("a", SIZE, SIZE)])
    for label in range(3):
        boxes = found.boxes[found.labels == label]
        assert (box_iou(boxes, boxes) - torch.eye(len(boxes))).max() <= 0.4
    (few,) = head(score_threshold=0.3, nms_iou=0.4, max_per_image=3).predict(
        outputs(retina, 1), [Meta("a", SIZE, SIZE)]
    )
    torch.testing.assert_close(few.boxes, found.boxes[:3])


@pytest.mark.parametrize("flipped", [False, True])
def test_a_view_is_brought_back(flipped: bool) -> None:
    view = View(None, (96, 64), flipped)
    boxes = torch.tensor([[1.0, 2.0, 9.0, 20.0]])
    moved = view.boxes_to(boxes, SIZE)
    assert moved.tolist() == ([[55.0, 4.0, 63.0, 40.0]] if flipped else [[1.0, 4.0, 9.0, 40.0]])
    torch.testing.assert_close(view.boxes_from(moved, SIZE), boxes)


def test_views_are_put_together_before_suppression() -> None:
    retina = head(score_threshold=0.3).eval()
    out, meta = outputs(retina, 1), Meta("a", SIZE, SIZE)
    (plain,) = retina.predict(out, [meta])
    (same,) = retina.predict([View(out, SIZE), View(out, SIZE)], [meta])
    torch.testing.assert_close(same.boxes, plain.boxes)
    nothing = DenseOutputs([x - 99 for x in out.logits], out.deltas)
    (both,) = retina.predict([View(nothing, SIZE), View(out, SIZE)], [meta])
    torch.testing.assert_close(both.boxes, plain.boxes)
    (none,) = retina.predict([View(nothing, SIZE)], [meta])
    assert none.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_per_level": 0}, "max_per_level must be at least 1, not 0"),
        ({"anchor_scale": 0.0}, "anchor_scale must be positive and scales_per_octave at least 1, not 0.0 and 3"),
        ({"scales_per_octave": 0}, "at least 1, not 2.0 and 0"),
        ({"num_convs": -1}, "-1 convolutions"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        head(**options)


def test_levels_of_several_widths_are_refused() -> None:
    specs = (FeatureSpec(6, (8, 8)), FeatureSpec(8, (16, 16)))
    with pytest.raises(ConfigError, match=r"levels of one width, not \[6, 8\]: put model.neck"):
        RetinaHead(specs, num_classes=3)
