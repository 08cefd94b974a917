from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou, roi_align

from densevit.errors import ConfigError
from densevit.features import FeatureSpec
from densevit.structures import BoxTarget, Meta, Sample
from densevit.tasks.detection.box_coder import decode, encode
from densevit.tasks.detection.box_head import BoxHead
from densevit.tasks.detection.head import clip
from densevit.tasks.detection.mask_head import MaskHead, mask_targets
from densevit.tasks.detection.roi_head import Objects, RoIHead
from densevit.tasks.detection.roi_pool import RoIPool

SPECS = tuple(FeatureSpec(4, (s, s)) for s in (4, 8, 16, 32, 64))
SIZE = (64, 96)
K = 3
STDS = (0.1, 0.1, 0.2, 0.2)


def maps(batch: int = 2, channels: int = 4) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    return tuple(torch.randn(batch, channels, -(-SIZE[0] // s), -(-SIZE[1] // s)) for s in (4, 8, 16, 32, 64))


def objects(boxes: list[list[float]]) -> Objects:
    masks = torch.zeros(len(boxes), *SIZE, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[int(y1) : int(y2), int(x1) : int(x1 + 0.6 * (x2 - x1))] = 1
    count = len(boxes)
    target = BoxTarget(
        torch.tensor(boxes).view(-1, 4),
        torch.arange(count) % K,
        torch.zeros(count, dtype=torch.bool),
        torch.ones(count),
        masks,
        torch.tensor(0),
    )
    return Objects.of(Sample(torch.empty(0), target, Meta("x.png", SIZE, SIZE)), training=True)


TRUTH = [objects([[5.0, 5.0, 45.0, 50.0], [50.0, 10.0, 80.0, 40.0]]), objects([])]


def proposals() -> list[Tensor]:
    """Return boxes near the objects and elsewhere."""
    torch.manual_seed(2)
    near = torch.cat([each.boxes for each in TRUTH]).repeat(8, 1)
    near = near + 6 * torch.randn_like(near)
    corner = 50 * torch.rand(2, 20, 2)
    far = torch.cat([corner, corner + 5 + 40 * torch.rand(2, 20, 2)], dim=2)
    return [clip(torch.cat([near, far[0]]), SIZE), clip(far[1], SIZE)]


def roi_head(stages: int = 1, samples: int = 10_000, agnostic: bool = False, rescue: float | None = None) -> RoIHead:
    torch.manual_seed(0)
    heads = [
        BoxHead(4, K, fc_channels=8, class_agnostic=agnostic or stages > 1, stds=[s / (i + 1) for s in STDS])
        for i in range(stages)
    ]
    for head in heads:
        for layer in (head.fc_cls, head.fc_reg):
            torch.nn.init.normal_(layer.weight, std=0.5)
    masks = MaskHead(4, K, channels=5, num_convs=1, class_agnostic=agnostic)
    ious = [0.5 + 0.1 * i for i in range(stages)]
    return RoIHead(RoIPool(SPECS), heads, ious, rescue, masks, samples)


def test_a_box_is_read_from_the_level_of_its_size() -> None:
    sides = torch.tensor([0.0, 5.0, 111.9, 112.0, 223.9, 224.0, 447.9, 448.0, 9999.0])
    boxes = torch.stack([torch.zeros_like(sides), torch.zeros_like(sides), sides, sides], dim=1)
    assert RoIPool(SPECS).level_of(boxes).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    long = torch.tensor([[0.0, 0.0, 448.0, 28.0]])
    assert RoIPool(SPECS).level_of(long).tolist() == [1]


def test_features_come_in_the_order_of_the_boxes() -> None:
    constant = tuple(
        torch.full_like(x, level) + 10 * torch.arange(2)[:, None, None, None] for level, x in enumerate(maps())
    )
    sides = torch.tensor([300.0, 20.0, 150.0, 900.0, 30.0])
    boxes = torch.stack([sides * 0, sides * 0, sides, sides], dim=1).clamp(max=1000)
    pooled = RoIPool(SPECS)([F.pad(x, (0, 300, 0, 300), mode="replicate") for x in constant], [boxes[:3], boxes[3:]], 7)
    assert pooled.shape == (5, 4, 7, 7)
    assert pooled.mean(dim=(1, 2, 3)).round().tolist() == [2, 0, 1, 13, 10]


def test_features_are_those_of_torchvision() -> None:
    boxes = torch.tensor([[3.0, 4.0, 60.0, 50.0], [10.0, 20.0, 30.0, 40.0]])
    expected = roi_align(maps()[0], [boxes, boxes[:1]], 14, 1 / 4, aligned=True)
    torch.testing.assert_close(RoIPool(SPECS)(maps(), [boxes, boxes[:1]], 14), expected)


def test_maps_of_low_precision_are_read() -> None:
    low = RoIPool(SPECS)(tuple(x.bfloat16() for x in maps()), proposals(), 7)
    torch.testing.assert_close(low, RoIPool(SPECS)(maps(), proposals(), 7), rtol=0.05, atol=0.05)


def test_strides_that_differ_by_axis_are_refused() -> None:
    with pytest.raises(ConfigError, match="one stride for both axes"):
        RoIPool((FeatureSpec(4, (4, 8)),))


def test_targets_of_masks_are_cut_out_of_their_own_mask() -> None:
    truth = objects([[float(i), 8.0, i + 40.0, 40.0] for i in range(40)])  # more than are held at once
    masks = truth.sample.target.masks
    index = torch.tensor([39, 0, 35, 3])
    boxes = truth.boxes[index]
    targets = mask_targets(masks, index, boxes)
    expected = torch.cat(
        [
            roi_align(masks[i][None, None].float(), [b[None]], 28, aligned=True)
            for i, b in zip(index, boxes, strict=True)
        ]
    )
    assert torch.equal(targets, (expected[:, 0] >= 0.5).float())
    assert targets[0].mean(dim=0).tolist() == [1.0] * 17 + [0.0] * 11  # 24 of 40 columns are inside


def plain_losses(head: RoIHead, pairs: list[tuple[int, Tensor, int]]) -> dict[str, Tensor]:
    """Compute the losses box by box, for (image, box, object or -1)."""
    loss_cls, loss_bbox, loss_mask, masked = (torch.zeros(()) for _ in range(4))
    assert isinstance(head.bbox_head, BoxHead)
    assert head.mask_head is not None
    for image, box, found in pairs:
        boxes = [box[None] if i == image else box.new_empty(0, 4) for i in range(2)]
        logits, deltas = head.bbox_head(head.pool(maps(), boxes, 7))
        label = int(TRUTH[image].labels[found]) if found >= 0 else K
        loss_cls = loss_cls + F.cross_entropy(logits[0], torch.tensor(label))
        if found >= 0:
            channel = label if deltas.shape[1] > 1 else 0
            goal = encode(box[None], TRUTH[image].boxes[found][None], STDS)
            loss_bbox = loss_bbox + (deltas[0, channel] - goal[0]).abs().sum()
            mask = TRUTH[image].sample.target.masks[found]
            target = (roi_align(mask[None, None].float(), [box[None]], 28, aligned=True)[0, 0] >= 0.5).float()
            cells = head.mask_head(head.pool(maps(), boxes, 14))[0, channel]
            loss_mask = loss_mask + F.binary_cross_entropy_with_logits(cells, target)
            masked = masked + 1
    assert masked > 4
    return {"loss_cls": loss_cls / len(pairs), "loss_bbox": loss_bbox / len(pairs), "loss_mask": loss_mask / masked}


@pytest.mark.parametrize("agnostic", [False, True])
def test_losses_are_those_of_the_recipe(agnostic: bool) -> None:
    head, pairs = roi_head(agnostic=agnostic), []
    for image, (truth, found) in enumerate(zip(TRUTH, proposals(), strict=True)):
        pairs += [(image, box, j) for j, box in enumerate(truth.boxes)]  # objects are proposals too
        for box in found:
            ious = box_iou(box[None], truth.boxes)[0] if len(truth.boxes) else torch.zeros(1)
            pairs.append((image, box, int(ious.argmax()) if ious.max() >= 0.5 else -1))
    # More than a quarter is positive, so that not all background would be drawn: draw all of both.
    head.samples = 4 * len(pairs)
    losses = head.loss(maps(), proposals(), TRUTH)
    expected = plain_losses(head, pairs)
    torch.testing.assert_close({name: losses[name] for name in expected}, expected)
    assert 0 <= losses["acc_cls"] <= 1


def test_a_quarter_of_the_sampled_proposals_has_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    head = roi_head(samples=16)
    seen: list[Tensor] = []
    monkeypatch.setattr(BoxHead, "loss", lambda self, outputs, boxes, labels, goals: seen.append(labels) or {})
    head.loss(maps(), proposals(), TRUTH)
    first, second = seen[0].split(16)
    assert (first < K).sum() == 4
    assert (second == K).all()


def test_every_class_above_the_threshold_is_a_candidate() -> None:
    head, found = roi_head().eval(), proposals()
    got = head.candidates(maps(), found, [SIZE, SIZE], threshold=0.2)
    logits, deltas = head.bbox_head(head.pool(maps(), found, 7))
    scores = logits.softmax(1)[:, :K].split([len(x) for x in found])
    for i, (instances, offsets) in enumerate(zip(got, deltas.split([len(x) for x in found]), strict=True)):
        pairs = [(n, k) for n in range(len(found[i])) for k in range(K) if scores[i][n, k] > 0.2]
        boxes = [clip(decode(found[i][n][None], offsets[n, k][None], STDS), SIZE) for n, k in pairs]
        assert len(pairs) > 10
        torch.testing.assert_close(instances.boxes, torch.cat(boxes))
        torch.testing.assert_close(instances.scores, torch.stack([scores[i][n, k] for n, k in pairs]))
        assert instances.labels.tolist() == [k for _, k in pairs]


def test_a_cascade_refines_boxes_and_averages_scores() -> None:
    head, boxes = roi_head(stages=3).eval(), proposals()
    (first, second) = head.candidates(maps(), boxes, [SIZE, SIZE], threshold=0.0)
    mean = torch.zeros(sum(map(len, boxes)), K)
    for stage in head.stages:
        logits, deltas = stage(head.pool(maps(), boxes, 7))
        mean += logits.softmax(1)[:, :K] / 3
        split = deltas[:, 0].split([len(x) for x in boxes])
        boxes = [clip(decode(b, d, stage.stds), SIZE) for b, d in zip(boxes, split, strict=True)]
    torch.testing.assert_close(torch.cat([first.scores, second.scores]), mean.flatten())
    torch.testing.assert_close(first.boxes, boxes[0].repeat_interleave(K, dim=0))


def test_a_stage_learns_from_the_boxes_of_the_one_before_at_a_higher_iou(monkeypatch: pytest.MonkeyPatch) -> None:
    head = roi_head(stages=3, samples=400)
    seen: list[tuple[Tensor, Tensor]] = []

    def spy(self: BoxHead, outputs: Any, boxes: Tensor, labels: Tensor, goals: Tensor) -> dict[str, Tensor]:
        seen.append((boxes, labels))
        return {"loss_cls": outputs[0].sum()}

    monkeypatch.setattr(BoxHead, "loss", spy)
    losses = head.loss(maps(), proposals(), TRUTH)
    assert set(losses) == {"loss_cls_stage0", "loss_cls_stage1", "loss_cls_stage2", "loss_mask"}
    for (boxes, labels), iou in zip(seen, (0.5, 0.6, 0.7), strict=True):
        best = box_iou(boxes[labels < K], TRUTH[0].boxes).max(dim=1).values
        assert (best >= iou).all()
        assert not boxes.requires_grad
    assert not torch.equal(seen[0][0], seen[1][0])


@pytest.mark.parametrize("stages", [1, 3])
def test_gradients_of_maps_are_divided_by_the_number_of_stages(stages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    head, read = roi_head(stages=stages), [x.requires_grad_() for x in maps()]
    head.mask_head = None
    monkeypatch.setattr(
        BoxHead, "forward", lambda self, x: (x.sum() + x.new_zeros(len(x), K + 1), x.new_zeros(len(x), 1, 4))
    )
    monkeypatch.setattr(BoxHead, "loss", lambda self, outputs, *_: {"loss_cls": outputs[0][0, 0]})
    sum(head.loss(tuple(read), proposals(), TRUTH).values()).backward()  # type: ignore[union-attr]
    count = sum(map(len, proposals())) + 2
    total = sum(x.grad.sum() for x in read if x.grad is not None)
    torch.testing.assert_close(total, torch.tensor(float(count * 4 * 49)), rtol=0.15, atol=0.0)  # some leave the image


def test_masks_are_those_of_the_classes() -> None:
    head = roi_head().eval()
    boxes = proposals()
    labels = [torch.arange(len(x)) % K for x in boxes]
    first, second = head.masks(maps(), boxes, labels) or []
    assert head.mask_head is not None
    logits = head.mask_head(head.pool(maps(), boxes, 14)).sigmoid()
    assert [len(first), len(second)] == [len(x) for x in boxes]
    torch.testing.assert_close(first[4], logits[4, 1])
    torch.testing.assert_close(second[2], logits[len(boxes[0]) + 2, 2])
