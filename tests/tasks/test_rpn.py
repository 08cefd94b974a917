from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou, nms

from densevit.features import FeatureSpec
from densevit.tasks.detection import rpn as module
from densevit.tasks.detection.anchors import DenseOutputs
from densevit.tasks.detection.box_coder import decode, encode
from densevit.tasks.detection.head import clip
from densevit.tasks.detection.matching import BACKGROUND, IGNORED
from densevit.tasks.detection.rpn import RPNHead
from densevit.tasks.detection.sampling import sample

SPECS = tuple(FeatureSpec(6, (s, s)) for s in (8, 16))
SIZE = (48, 64)
OBJECTS = [
    torch.tensor([[4.0, 6.0, 30.0, 40.0], [20.0, 10.0, 61.0, 30.0], [3.0, 3.0, 9.0, 7.0]]),
    torch.empty(0, 4),
    torch.tensor([[10.0, 10.0, 40.0, 44.0]]),
]


def rpn(**options: Any) -> RPNHead:
    torch.manual_seed(0)
    made = RPNHead(SPECS, **{"channels": 6, "anchor_scales": (2.0, 4.0), **options})
    for layer in (made.rpn_conv, made.rpn_cls, made.rpn_reg):
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return made


def maps(batch: int = 3) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    return tuple(torch.randn(batch, 6, SIZE[0] // s.stride[0], SIZE[1] // s.stride[1]) for s in SPECS)


def outputs(head: RPNHead, batch: int = 3) -> DenseOutputs:
    return head(maps(batch))


def flat(maps: list[Tensor], width: int) -> list[Tensor]:
    """Return ``(N, anchors, width)`` of each level the slow way."""
    return [x.permute(0, 2, 3, 1).reshape(len(x), -1, width) for x in maps]


def anchors(head: RPNHead, out: DenseOutputs) -> list[Tensor]:
    return head.anchors([x.shape[2:] for x in out.logits], torch.device("cpu"))


MATCHED = torch.tensor([3, BACKGROUND, IGNORED, 0] * 20)


@pytest.mark.parametrize("random", [False, True])
def test_samples_are_no_more_than_asked_for_and_objects_no_more_than_their_share(random: bool) -> None:
    torch.manual_seed(0)
    picked = sample(MATCHED, 16, 0.25, random)
    assert len(set(picked.tolist())) == 16
    assert (MATCHED[picked] >= 0).tolist() == [True] * 4 + [False] * 12
    assert (MATCHED[picked] != IGNORED).all()


def test_background_fills_what_objects_leave_and_no_more_is_taken_than_there_is() -> None:
    assert (MATCHED[sample(MATCHED, 1000, 0.5, True)] != IGNORED).sum() == 60
    few = torch.tensor([1] + [BACKGROUND] * 30)
    assert sample(few, 16, 0.5, True)[0] == 0
    assert len(sample(few, 16, 0.5, True)) == 16


def test_samples_are_drawn_in_training_and_always_the_same_in_evaluation() -> None:
    torch.manual_seed(0)
    first, second = (sample(MATCHED, 8, 0.5, random=True) for _ in range(2))
    assert not torch.equal(first, second)
    first, second = (sample(MATCHED, 8, 0.5, random=False) for _ in range(2))
    assert torch.equal(first, second)
    assert first.max() > 60  # from all of them


def plain_loss(head: RPNHead, out: DenseOutputs) -> tuple[Tensor, Tensor]:
    """Compute the recipe anchor by anchor, where every anchor that could be is sampled."""
    logits, deltas = torch.cat(flat(out.logits, 1), 1)[..., 0], torch.cat(flat(out.deltas, 4), 1)
    every = torch.cat(anchors(head, out))
    loss_cls, loss_bbox, count = torch.zeros(()), torch.zeros(()), 0
    for i, boxes in enumerate(OBJECTS):
        ious = box_iou(every, boxes) if len(boxes) else torch.zeros(len(every), 1)
        for a, row in enumerate(ious):
            found = int(row.argmax()) if row.max() >= 0.7 else -1
            for j in range(len(boxes)):
                if ious[a, j] == ious[:, j].max() >= 0.3:
                    found = j
            if found < 0 and row.max() >= 0.3:
                continue
            count += 1
            loss_cls = loss_cls + F.binary_cross_entropy_with_logits(logits[i, a], torch.tensor(float(found >= 0)))
            if found >= 0:
                goal = encode(every[a][None], boxes[found][None], (1, 1, 1, 1))[0]
                loss_bbox = loss_bbox + (deltas[i, a] - goal).abs().sum()
    return loss_cls / count, loss_bbox / count


def test_losses_are_those_of_the_recipe() -> None:
    head = rpn(samples=100_000)
    out = outputs(head)
    losses = head.loss(out, maps(), OBJECTS)
    loss_cls, loss_bbox = plain_loss(head, out)
    assert loss_bbox > 0
    torch.testing.assert_close(losses, {"loss_rpn_cls": loss_cls, "loss_rpn_bbox": loss_bbox})


def dense_outputs(head: RPNHead, given: tuple[Tensor, ...]) -> DenseOutputs:
    """Return what a head gives, with gradients everywhere."""
    shared = [F.relu(head.rpn_conv(x)) for x in given]
    return DenseOutputs([head.rpn_cls(x) for x in shared], [head.rpn_reg(x) for x in shared])


def test_sampled_cells_learn_as_whole_maps_do() -> None:
    head = rpn(samples=100_000)
    gradients = []
    for whole in (False, True):
        given = tuple(x.requires_grad_() for x in maps())
        head.zero_grad()
        losses = (
            plain_loss(head, dense_outputs(head, given)) if whole else head.loss(head(given), given, OBJECTS).values()
        )
        sum(losses, torch.zeros(())).backward()
        gradients.append([x.grad for x in (*given, *head.parameters())])
    for sampled, whole in zip(*gradients, strict=True):
        assert whole.abs().max() > 0
        torch.testing.assert_close(sampled, whole, rtol=1e-4, atol=1e-6)


def test_several_convolutions_learn_as_whole_maps_do() -> None:
    head = rpn(samples=100_000, num_convs=2)
    out = outputs(head)
    losses = head.loss(out, maps(), OBJECTS)
    loss_cls, loss_bbox = plain_loss(head, out)
    torch.testing.assert_close(losses, {"loss_rpn_cls": loss_cls, "loss_rpn_bbox": loss_bbox})
    assert out.logits[0].requires_grad


def test_as_many_anchors_learn_as_are_sampled_and_half_of_them_have_an_object_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = rpn(samples=32)
    out = outputs(head)
    truths: list[Tensor] = []

    def keep(scores: Tensor, truth: Tensor, reduction: str) -> Tensor:
        truths.append(truth)
        return scores.sum()

    monkeypatch.setattr(F, "binary_cross_entropy_with_logits", keep)
    many = torch.cat(anchors(head, out))[100:160]
    for objects, share in (([many, many, many], 0.5), ([many[:0]] * 3, 0.0)):
        truths.clear()
        head.loss(out, maps(), objects)
        assert sum(len(truth) for truth in truths) == 96
        assert sum(int(truth.sum()) for truth in truths) == 96 * share


@pytest.mark.parametrize("size", [SIZE, (30, 50)])
def test_proposals_are_the_best_of_each_level_after_suppression(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PER_LEVEL", {True: 10**6, False: 40})
    monkeypatch.setattr(module, "MAX_PROPOSALS", 30)
    head = rpn().eval()
    out = outputs(head)
    found = head.proposals(out, [size] * 3)
    for image in range(3):
        boxes, scores = [], []
        for logits, deltas, level in zip(flat(out.logits, 1), flat(out.deltas, 4), anchors(head, out), strict=True):
            best = logits[image, :, 0].sort(descending=True).indices[:40]
            box = clip(decode(level[best], deltas[image, best], (1, 1, 1, 1)), size)
            solid = (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])
            box, score = box[solid], logits[image, best, 0][solid]
            kept = nms(box, score, 0.7)
            boxes.append(box[kept])
            scores.append(score[kept])
        order = torch.cat(scores).sort(descending=True).indices[:30]
        torch.testing.assert_close(found[image], torch.cat(boxes)[order])
        assert not found[image].requires_grad


def test_training_takes_more_proposals_than_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PER_LEVEL", {True: 8, False: 4})
    monkeypatch.setattr(module, "NMS_IOU", 1.0)
    head = rpn()
    out = outputs(head, 1)
    still = DenseOutputs(out.logits, [0 * x for x in out.deltas])
    assert len(head.train().proposals(still, [SIZE])[0]) == 16
    assert len(head.eval().proposals(still, [SIZE])[0]) == 8


def test_what_is_not_a_number_proposes_nothing() -> None:
    head = rpn()
    out = outputs(head, 1)
    (found,) = head.proposals(DenseOutputs(out.logits, [x * torch.nan for x in out.deltas]), [SIZE])
    assert found.shape == (0, 4)


def test_names_of_parameters_are_those_of_mmdetection() -> None:
    assert [name for name, _ in rpn().named_parameters()] == [
        f"{layer}.{kind}" for layer in ("rpn_conv", "rpn_cls", "rpn_reg") for kind in ("weight", "bias")
    ]
    assert {"rpn_conv.0.conv.weight", "rpn_conv.1.conv.bias"} <= dict(rpn(num_convs=2).named_parameters()).keys()
