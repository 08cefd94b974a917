"""Transforms of images with objects keep boxes, masks and all else that is known of an object together."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxes, Image, Mask

from densevit.data.boxes import LargeScaleJitter, RandomSizeCrop
from densevit.data.resize import resize_nearest
from densevit.data.transforms import build_transforms
from densevit.errors import ConfigError
from densevit.structures import SegTarget

SHORT = {"type": "ShortSideResize", "sizes": [48, 64, 80], "max_size": 133}
SANITIZE = {"type": "SanitizeObjects"}
BOXES = [[2, 3, 22, 33], [50, 10, 100, 40], [90, 60, 100, 80]]


def sample(size: tuple[int, int] = (80, 100), masks: bool = True) -> tuple[Image, dict[str, Any]]:
    """Return an image whose pixels within an object are bright, and three objects that are rectangles."""
    stack = torch.zeros(len(BOXES), *size, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(stack, BOXES, strict=True):
        mask[y1:y2, x1:x2] = 1
    fields = {
        "boxes": BoundingBoxes(torch.tensor(BOXES, dtype=torch.float32), format="XYXY", canvas_size=size),
        "labels": torch.tensor([4, 5, 6]),
        "crowd": torch.tensor([False, False, True]),
        "area": torch.tensor([600.0, 1500.0, 200.0]),
        "masks": Mask(stack) if masks else None,
        "image_id": torch.tensor(17),
    }
    return Image((stack.amax(0) * 200).repeat(3, 1, 1)), fields


def apply(*cfgs: dict[str, Any], seed: int = 0, masks: bool = True) -> tuple[Tensor, dict[str, Any]]:
    torch.manual_seed(seed)
    return build_transforms(cfgs)(*sample(masks=masks))


def assert_consistent(image: Tensor, fields: dict[str, Any], tolerance: float) -> None:
    """Compare shapes, boxes with masks, and masks with the image."""
    boxes, masks = fields["boxes"], fields["masks"]
    assert tuple(boxes.canvas_size) == tuple(masks.shape[1:]) == tuple(image.shape[1:])
    assert len({len(fields[name]) for name in ("boxes", "labels", "crowd", "area", "masks")}) == 1
    for box, mask in zip(boxes.as_subclass(Tensor), masks.as_subclass(Tensor), strict=True):
        y, x = mask.nonzero().T
        tight = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
        assert (box - tight).abs().max() <= tolerance
        bright = image[0].as_subclass(Tensor)[mask > 0].float()
        assert bright.mean() > 150


def test_the_short_side_is_one_of_the_sizes_and_the_long_one_bounded() -> None:
    sizes = {tuple(apply(SHORT, seed=i)[0].shape[1:]) for i in range(30)}
    assert sizes == {(48, 60), (64, 80), (80, 100)}
    bounded = apply({**SHORT, "sizes": 80, "max_size": 90})[0]
    assert bounded.shape[1:] == (72, 90)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (800, 1067)), ((427, 640), (800, 1199)), ((640, 360), (1333, 750)), ((333, 500), (800, 1201))],
)
def test_sides_are_rounded_as_in_mmdetection(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image = Image(torch.zeros(1, *size, dtype=torch.uint8))
    resized = build_transforms([{"type": "ShortSideResize", "sizes": 800, "max_size": 1333}])(image)
    tested = build_transforms([{"type": "AlignedResize", "scale": (1333, 800), "divisor": 1}])(image)
    assert resized.shape[1:] == tested.shape[1:] == expected


def test_boxes_are_scaled_exactly_and_masks_follow() -> None:
    image, fields = apply({**SHORT, "sizes": 160, "max_size": 300})
    assert torch.equal(fields["boxes"].as_subclass(Tensor), 2.0 * torch.tensor(BOXES))
    assert_consistent(image, fields, tolerance=0)
    assert fields["masks"].dtype == torch.uint8
    assert torch.equal(image, F.resize(sample()[0], [160, 200]))


def test_other_fields_stay_as_they_are() -> None:
    _, fields = apply(SHORT, {"type": "RandomHorizontalFlip", "p": 1.0}, SANITIZE)
    for name, value in sample()[1].items():
        if name not in ("boxes", "masks"):
            assert torch.equal(fields[name], value)


def test_a_flip_turns_boxes_and_masks() -> None:
    image, fields = apply({"type": "RandomHorizontalFlip", "p": 1.0})
    assert fields["boxes"][0].tolist() == [78, 3, 98, 33]
    assert_consistent(image, fields, tolerance=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_masks_are_resized_one_as_all(dtype: torch.dtype) -> None:
    masks = sample()[1]["masks"].to(dtype)
    whole = resize_nearest(masks, (53, 71))
    assert whole.shape == (3, 53, 71)
    assert whole.dtype == dtype
    for mask, one in zip(whole, masks, strict=True):
        assert torch.equal(mask, resize_nearest(one, (53, 71)))
    assert resize_nearest(masks[:0], (53, 71)).shape == (0, 53, 71)


def test_a_crop_has_a_random_size_and_place_within_its_bounds() -> None:
    crop = RandomSizeCrop(30, 60)
    draws = [crop.make_params([sample()[0]]) for _ in range(300)]
    for name in ("height", "width"):
        assert {draw[name] for draw in draws} >= {30, 60}
        assert all(30 <= draw[name] <= 60 for draw in draws)
    assert all(0 <= d["top"] <= 80 - d["height"] and 0 <= d["left"] <= 100 - d["width"] for d in draws)
    assert len({d["left"] for d in draws}) > 30
    small = RandomSizeCrop(90, 200).make_params([sample()[0]])
    assert (small["height"], small["top"]) == (80, 0)
    assert 90 <= small["width"] <= 100


@pytest.mark.parametrize("seed", range(8))
def test_a_crop_drops_objects_outside_from_all_fields(seed: int) -> None:
    crop = {"type": "RandomSizeCrop", "min_size": 30, "max_size": 50}
    image, fields = apply(crop, SANITIZE, seed=seed)
    assert_consistent(image, fields, tolerance=0)
    first = {4: (600.0, False), 5: (1500.0, False), 6: (200.0, True)}
    found = zip(fields["labels"].tolist(), fields["area"].tolist(), fields["crowd"].tolist(), strict=True)
    assert all(first[label] == (area, crowd) for label, area, crowd in found)
    assert isinstance(fields["boxes"], BoundingBoxes)
    assert isinstance(fields["masks"], Mask)
    assert fields["image_id"] == 17


def test_an_image_may_end_without_objects() -> None:
    for seed in range(50):
        image, fields = apply({"type": "RandomSizeCrop", "min_size": 8, "max_size": 8}, SANITIZE, seed=seed)
        if not len(fields["labels"]):
            assert fields["boxes"].shape == (0, 4)
            assert fields["masks"].shape == (0, 8, 8)
            image, fields = build_transforms([SHORT, {"type": "RandomHorizontalFlip", "p": 1.0}, SANITIZE])(
                image, fields
            )
            assert fields["masks"].shape[1:] == image.shape[1:]
            return
    pytest.fail("every crop had an object")


def test_too_small_and_empty_objects_are_dropped() -> None:
    image, fields = sample()
    fields["boxes"][0] = torch.tensor([2.0, 3.0, 2.5, 33.0])
    fields["masks"][1] = 0
    _, fields = build_transforms([SANITIZE])(image, fields)
    assert fields["labels"].tolist() == [6]
    image, fields = sample(masks=False)
    _, fields = build_transforms([{**SANITIZE, "min_size": 15}])(image, fields)
    assert fields["labels"].tolist() == [4, 5]
    assert fields["masks"] is None


def test_boxes_are_clipped_to_the_image() -> None:
    image, fields = sample()
    fields["boxes"][2] = torch.tensor([90.0, 60.0, 130.0, 90.0])
    _, fields = build_transforms([SANITIZE])(image, fields)
    assert fields["boxes"][2].tolist() == [90, 60, 100, 80]


def test_boxes_can_be_made_from_masks() -> None:
    image, fields = sample()
    fields["boxes"] = torch.zeros_like(fields["boxes"])
    fields["boxes"] = BoundingBoxes(torch.zeros(3, 4), format="XYXY", canvas_size=(80, 100))
    _, fields = build_transforms([{**SANITIZE, "boxes_from_masks": True}])(image, fields)
    assert fields["boxes"].tolist() == BOXES
    with pytest.raises(ConfigError, match="masks=True"):
        build_transforms([{**SANITIZE, "boxes_from_masks": True}])(*sample(masks=False))


def test_samples_without_boxes_are_refused() -> None:
    with pytest.raises(ConfigError, match="SanitizeObjects is for samples with boxes"):
        build_transforms([SANITIZE])(sample()[0], {"mask": SegTarget(Mask(torch.zeros(80, 100))).mask})


@pytest.mark.parametrize("seed", range(12))
def test_large_scale_jitter_keeps_objects_together(seed: int) -> None:
    image, fields = apply({"type": "LargeScaleJitter", "size": 120, "scale": (0.5, 2.0)}, SANITIZE, seed=seed)
    assert max(image.shape[1:]) <= 120
    assert_consistent(image, fields, tolerance=1.5)


def test_large_scale_jitter_spans_its_range() -> None:
    def width_of_first(ratio: float) -> tuple[float, tuple[int, ...]]:
        image, fields = apply({"type": "LargeScaleJitter", "size": 200, "scale": (ratio, ratio)})
        box = fields["boxes"].as_subclass(Tensor)[1]
        return float(box[2] - box[0]), tuple(image.shape[1:])

    assert width_of_first(0.5) == (50, (80, 100))
    assert width_of_first(1.0) == (100, (160, 200))
    params = LargeScaleJitter(200, (1.25, 1.25)).make_params([sample()[0]])
    assert params["size"] == [200, 200]  # of 200 x 250
    assert (params["window"]["height"], params["window"]["width"]) == (80, 80)
    assert 0 <= params["window"]["left"] <= 20


def choice() -> list[dict[str, Any]]:
    crop = [
        {**SHORT, "sizes": [40, 50, 60]},
        {"type": "RandomSizeCrop", "min_size": 38, "max_size": 60},
        SANITIZE,
        SHORT,
    ]
    branches = [{"type": "Compose", "transforms": branch} for branch in ([SHORT], crop)]
    return [{"type": "RandomHorizontalFlip"}, {"type": "RandomChoice", "transforms": branches}, SANITIZE]


def test_the_pipeline_of_detr_is_a_choice_of_two_lists() -> None:
    aspects = set()
    for seed in range(20):
        image, fields = apply(*choice(), seed=seed)
        assert_consistent(image, fields, tolerance=2)
        aspects.add(round(image.shape[2] / image.shape[1], 1))
    assert len(aspects) > 3


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize(
    "cfgs", [choice(), [{"type": "LargeScaleJitter", "size": 90}, SANITIZE]], ids=["detr", "jitter"]
)
def test_the_seed_decides_every_draw(cfgs: list[dict[str, Any]], masks: bool) -> None:
    one, other = (apply(*cfgs, seed=5, masks=masks) for _ in range(2))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1]["boxes"], other[1]["boxes"])
    assert len({tuple(apply(*cfgs, seed=i, masks=masks)[0].shape) for i in range(10)}) > 2


@pytest.mark.parametrize(
    "cfg",
    [
        {"type": "ShortSideResize", "sizes": []},
        {"type": "ShortSideResize", "sizes": 800, "max_size": 600},
        {"type": "RandomSizeCrop", "min_size": 600, "max_size": 384},
        {"type": "LargeScaleJitter", "scale": (2.0, 0.1)},
        {"type": "LargeScaleJitter", "size": 0},
    ],
)
def test_impossible_values_are_refused(cfg: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        build_transforms([cfg])
