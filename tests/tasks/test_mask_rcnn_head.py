"""The two-stage heads as wholes: training, prediction, batches without objects, views, low precision, weights."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densevit.errors import ConfigError
from densevit.features import Features, FeatureSpec
from densevit.structures import BoxTarget, Meta, Sample
from densevit.tasks.detection.cascade_head import CascadeMaskRCNNHead
from densevit.tasks.detection.head import View
from densevit.tasks.detection.inference import DetectionTTA
from densevit.tasks.detection.mask_rcnn_head import MaskRCNNHead, TwoStageHead
from densevit.tasks.detection.masks import decode

SIZE = (48, 64)
SPECS = tuple(FeatureSpec(8, (s, s)) for s in (4, 8, 16, 32, 64))
SMALL = {"rpn_channels": 8, "fc_channels": 16, "mask_channels": 8, "mask_convs": 1, "rpn_samples": 32}
BOXES = [[4.0, 6.0, 30.0, 42.0], [34.0, 8.0, 60.0, 34.0]]


def mask_rcnn(**options: Any) -> MaskRCNNHead:
    torch.manual_seed(0)
    return MaskRCNNHead(SPECS, **{"num_classes": 3, "roi_samples": 32, **SMALL, **options})


def cascade(**options: Any) -> CascadeMaskRCNNHead:
    torch.manual_seed(0)
    return CascadeMaskRCNNHead(SPECS, **{"num_classes": 3, "roi_samples": 32, "box_convs": 1, **SMALL, **options})


KINDS: dict[str, Callable[[], TwoStageHead]] = {
    "Mask R-CNN": mask_rcnn,
    "agnostic": lambda: mask_rcnn(class_agnostic=True, class_agnostic_mask=True),
    "Faster R-CNN": lambda: mask_rcnn(mask_convs=None),
    "cascade": cascade,
}


def features(batch: int = 1, size: tuple[int, int] = SIZE) -> Features:
    torch.manual_seed(1)
    return Features(tuple(torch.randn(batch, 8, *(-(-n // s.stride[0]) for n in size)) for s in SPECS))


def sample(boxes: list[list[float]], size: tuple[int, int] = SIZE, input_size: tuple[int, int] = SIZE) -> Sample:
    """Return a sample whose objects fill the left half of their boxes."""
    count = len(boxes)
    masks = torch.zeros(count, *size, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[int(y1) : int(y2), int(x1) : int(x1 + x2) // 2] = 1
    crowd, area = torch.zeros(count, dtype=torch.bool), torch.ones(count)
    target = BoxTarget(torch.tensor(boxes).view(-1, 4), 2 * torch.arange(count), crowd, area, masks, torch.tensor(7))
    return Sample(torch.zeros(3, *input_size, dtype=torch.uint8), target, Meta("x.jpg", size, input_size))


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack([value for name, value in losses.items() if "loss" in name]).sum()


@pytest.fixture(scope="module")
def trained() -> tuple[MaskRCNNHead, Features]:
    """Return a head after a few steps on one image, and the maps, which learned too."""
    head, maps = mask_rcnn(), nn.ParameterList(features().maps)
    optimizer = torch.optim.AdamW([*head.parameters(), *maps], lr=4e-3)
    falls = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=400)
    for _ in range(400):
        optimizer.zero_grad()
        total(head.loss(head(Features(tuple(maps))), [sample(BOXES)])).backward()
        optimizer.step()
        falls.step()
    return head.eval(), Features(tuple(x.detach() for x in maps))


@torch.no_grad()
def test_one_image_is_learned_by_heart(trained: tuple[MaskRCNNHead, Features]) -> None:
    head, maps = trained
    (found,) = head.predict(head(maps), [Meta("x.jpg", SIZE, SIZE)])
    best = [int((found.labels == label).nonzero()[0]) for label in (0, 2)]
    assert (found.scores[best] > 0.8).all()
    torch.testing.assert_close(found.boxes[best], torch.tensor(BOXES), rtol=0, atol=5.0)
    assert found.masks is not None
    for i, truth in zip(best, sample(BOXES).target.masks.bool(), strict=True):
        mask = torch.from_numpy(decode(found.masks[i])).bool()
        assert (mask & truth).sum() / (mask | truth).sum() > 0.75


@torch.no_grad()
def test_predictions_have_the_size_of_the_file(trained: tuple[MaskRCNNHead, Features]) -> None:
    head, maps = trained
    (found,) = head.predict(head(maps), [Meta("x.jpg", SIZE, SIZE)])
    (twice,) = head.predict(head(maps), [Meta("x.jpg", (96, 128), SIZE)])
    torch.testing.assert_close(twice.boxes, 2 * found.boxes)
    assert twice.masks is not None
    assert decode(twice.masks[0]).shape == (96, 128)


@torch.no_grad()
def test_the_loss_in_evaluation_is_that_of_training_whatever_the_size_of_the_file() -> None:
    head = mask_rcnn(rpn_samples=100_000, roi_samples=100_000)
    out, boxes = head(features()), [[2 * x for x in box] for box in BOXES]
    expected = head.train().loss(out, [sample(BOXES)])
    torch.testing.assert_close(head.eval().loss(out, [sample(BOXES)]), expected)
    scaled = head.loss(out, [sample(boxes, (96, 128))])
    torch.testing.assert_close(scaled.pop("loss_mask"), expected.pop("loss_mask"), rtol=0.02, atol=0)
    torch.testing.assert_close(scaled, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [[BOXES, BOXES[:1]], [BOXES, []], [[], []], [[[5.0, 5.0, 5.0, 9.0]], []]])
def test_every_parameter_gets_a_finite_gradient_whatever_there_is_to_find(kind: str, batch: list[Any]) -> None:
    head, maps = KINDS[kind](), features(2)
    losses = head.loss(head(maps), [sample(boxes) for boxes in batch])
    assert ("loss_mask" in losses) == (kind != "Faster R-CNN")
    assert total(losses).isfinite()
    total(losses).backward()
    grads = {name: p.grad for name, p in head.named_parameters()}
    assert [n for n, grad in grads.items() if grad is None or not grad.isfinite().all()] == []
    if all(batch[:2]):
        assert [n for n, grad in grads.items() if grad is not None and not grad.any()] == []


@pytest.mark.parametrize("kind", KINDS)
def test_no_parameter_is_left_out_when_nothing_is_proposed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    head = KINDS[kind]()
    monkeypatch.setattr(head.rpn_head, "proposals", lambda outputs, sizes: [torch.empty(0, 4) for _ in sizes])
    losses = head.loss(head(features()), [sample([])])
    total(losses).backward()
    assert all(value.isfinite() for value in losses.values())
    assert [n for n, p in head.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert all(value.isfinite().all() for value in head.state_dict().values())  # statistics too
    with torch.no_grad():
        (found,) = head.eval().predict(head(features()), [Meta("x.jpg", SIZE, SIZE)])
    assert found.boxes.shape == (0, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_candidates_lie_in_their_image_and_have_scores_above_the_threshold(kind: str) -> None:
    head = KINDS[kind]().eval()
    head.score_threshold = 0.1
    sizes = [SIZE, (30, 40)]
    with torch.no_grad():
        out = head(features(2))
        found = head.candidates(out, sizes)
        masks = head.masks(out, [each.boxes for each in found], [each.labels for each in found])
    for each, (height, width) in zip(found, sizes, strict=True):
        assert len(each.boxes) > 0
        assert (each.boxes >= 0).all()
        assert (each.boxes <= torch.tensor([width, height, width, height])).all()
        assert each.scores.min() > 0.1
        assert set(each.labels.tolist()) <= {0, 1, 2}
    if masks is not None:
        assert [m.shape for m in masks] == [(len(each.boxes), 28, 28) for each in found]


def test_proposals_end_with_the_image_and_not_with_its_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    head, seen = mask_rcnn(), []
    small = sample(BOXES[:1], (44, 40), (44, 40))
    monkeypatch.setattr(head.roi_head, "loss", lambda maps, proposals, objects: seen.extend(proposals) or {})
    head.loss(head(features(2)), [sample(BOXES), small])
    assert seen[0][:, 2].max() > 40
    assert seen[1][:, 2].max() <= 40
    assert seen[1][:, 3].max() <= 44


def test_crowds_are_not_trained_on() -> None:
    head, both = mask_rcnn(rpn_samples=100_000, roi_samples=100_000), sample(BOXES)
    crowd = replace(both, target=replace(both.target, crowd=torch.tensor([True, False])))
    alone = sample(BOXES[1:])
    alone = replace(alone, target=replace(alone.target, labels=torch.tensor([2])))
    out = head(features())
    torch.testing.assert_close(head.loss(out, [crowd]), head.loss(out, [alone]))


def test_a_dataset_of_boxes_alone_cannot_train_masks() -> None:
    head, boxes = mask_rcnn(), sample(BOXES)
    boxes = replace(boxes, target=replace(boxes.target, masks=None))
    with pytest.raises(ConfigError, match=r"x\.jpg has no masks.*masks=True.*mask_convs=None"):
        head.loss(head(features()), [boxes])
    faster = mask_rcnn(mask_convs=None)
    assert total(faster.loss(faster(features()), [boxes])).isfinite()


@torch.no_grad()
def test_a_dataset_of_boxes_alone_is_validated_without_the_loss_of_masks() -> None:
    head, given = mask_rcnn().eval(), sample(BOXES)
    boxed = replace(given, target=replace(given.target, masks=None))
    losses = head.loss(head(features()), [given])
    del losses["loss_mask"]
    torch.testing.assert_close(head.loss(head(features()), [boxed]), losses)


@pytest.mark.parametrize("kind", ["Mask R-CNN", "cascade"])
def test_the_second_stage_runs_in_the_precision_of_the_first_and_losses_in_full(kind: str) -> None:
    head = KINDS[kind]()
    seen: list[torch.dtype] = []
    layers = [m for m in head.roi_head.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
    for layer in layers:
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        out = head(features())
    losses = head.loss(out, [sample(BOXES)])
    assert seen == [torch.bfloat16] * len(layers)
    assert {value.dtype for value in losses.values()} == {torch.float32}
    total(losses).backward()
    with torch.no_grad():
        (found,) = head.eval().predict(out, [Meta("x.jpg", SIZE, SIZE)])
    assert found.boxes.dtype == torch.float32
    seen.clear()
    head.loss(head(features()), [sample(BOXES)])
    assert set(seen) == {torch.float32}


class Pyramid(nn.Module):
    """A head on means of an image."""

    def __init__(self, head: TwoStageHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Any:
        maps = tuple(nn.functional.avg_pool2d(x, s.stride, ceil_mode=True).repeat(1, 2, 1, 1) for s in SPECS)
        return self.head(Features(maps))


@torch.no_grad()
def test_one_view_of_the_image_as_it_is_changes_nothing() -> None:
    torch.manual_seed(0)
    head, x = mask_rcnn(score_threshold=0.2).eval(), torch.randn(1, 4, *SIZE)
    network, meta = Pyramid(head), Meta("x.jpg", SIZE, SIZE)
    (plain,) = head.predict(network(x), [meta])
    (viewed,) = head.predict(DetectionTTA(scales=(1.0,), flip=False)(network, x), [meta])
    assert len(plain.scores) > 0
    torch.testing.assert_close(viewed.boxes, plain.boxes)
    assert viewed.masks == plain.masks
    (several,) = head.predict(DetectionTTA(scales=(1.0, 1.5))(network, x), [meta])
    assert several.masks is not None
    assert len(several.masks) == len(several.boxes)


@torch.no_grad()
def test_masks_of_the_mirror_image_are_mirrored() -> None:
    torch.manual_seed(0)
    head, x = mask_rcnn().eval(), torch.randn(1, 4, *SIZE)
    network, boxes, labels = Pyramid(head), torch.tensor(BOXES), torch.tensor([0, 2])
    for name, value in head.roi_head.mask_head.named_parameters():
        if value.ndim == 4:
            assert name.endswith("weight")
            value.copy_(value + value.flip(-1))
    mirrored = View(network(x.flip(-1)), SIZE, flipped=True)
    (expected,) = head.masks(network(x), [boxes], [labels]) or []
    (found,) = head.masks(mirrored.outputs, [mirrored.boxes_to(boxes, SIZE)], [labels]) or []
    torch.testing.assert_close(found.flip(-1), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rpn_convs": 0}, "rpn_convs and rpn_samples must be at least 1, not 0 and 32"),
        ({"roi_samples": 0}, "roi_samples must be at least 1, not 0"),
        ({"mask_convs": -1}, "-1 convolutions of 8 channels"),
        ({"anchor_scales": 8.0}, r"anchor_scales must be a list of positive numbers, not 8\.0"),
        ({"anchor_ratios": ()}, r"anchor_ratios must be a list of positive numbers, not \(\)"),
        ({"anchor_scales": ()}, "list of positive numbers"),
        ({"nms_iou": 0}, "nms_iou"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mask_rcnn(**options)


def test_stages_of_the_cascade_are_those_of_the_paper() -> None:
    head = cascade().roi_head
    assert head.ious == (0.5, 0.6, 0.7)
    assert head.rescue is None
    weights = [[1 / std for std in stage.stds] for stage in head.stages]
    torch.testing.assert_close(weights, [[w, w, w / 2, w / 2] for w in (10.0, 20.0, 30.0)])
    assert [stage.fc_reg.out_features for stage in head.stages] == [4, 4, 4]
