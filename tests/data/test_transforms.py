"""Transforms treat image and mask alike, keep labels intact, and draw from torch's generator only."""

import inspect
import random
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from densevit.data.transforms import build_transforms, resize_nearest
from densevit.errors import ConfigError
from densevit.registry import TRANSFORMS

TRAINING = [
    dict(type="RandomRatioResize", scale=(96, 64)),
    dict(type="RandomCategoryCrop", size=(40, 48)),
    dict(type="RandomHorizontalFlip", p=0.5),
    dict(type="PhotometricDistortion"),
]
OURS = ["RandomRatioResize", "RandomCategoryCrop", "AlignedResize", "PhotometricDistortion"]


def scene(height: int = 60, width: int = 90, dtype: torch.dtype = torch.uint8) -> tuple[tv_tensors.Image, Any]:
    """An image whose red channel is twenty times its mask, with ids 0, 3, 7 and 255."""
    ids = np.zeros((height, width), np.uint8)
    ids[height // 3 :, : width // 2] = 3
    ids[: height // 2, width // 2 :] = 7
    ids[-4:] = 255
    pixels = np.stack([ids.astype(int) * 20 % 256, ids, ids], axis=2).astype(np.uint8)
    image = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))
    return image, {"mask": tv_tensors.Mask(torch.from_numpy(ids).to(dtype))}


def build(**cfg: Any) -> v2.Transform:
    return build_transforms([cfg])


def test_every_transform_of_torchvision_and_ours_has_its_name() -> None:
    known = set(TRANSFORMS.names())
    theirs = {n for n, c in inspect.getmembers(v2, inspect.isclass) if issubclass(c, v2.Transform)} - {"Transform"}
    assert theirs | set(OURS) <= known
    for name in ["RandomHorizontalFlip", "Resize", "Normalize", "RandomCrop"]:
        assert TRANSFORMS.get(name) is getattr(v2, name)


def test_nested_lists_of_transforms_are_built() -> None:
    flip = dict(type="RandomHorizontalFlip", p=1.0)
    nested = build(type="RandomApply", transforms=[dict(type="RandomChoice", transforms=[flip])], p=1.0)
    image, fields = scene()
    flipped, flipped_fields = nested(image, fields)
    assert torch.equal(flipped, image.flip(-1))
    assert torch.equal(flipped_fields["mask"], fields["mask"].flip(-1))


def test_an_empty_list_changes_nothing_and_callables_are_taken() -> None:
    image, fields = scene()
    same, same_fields = build_transforms([])(image, fields)
    assert torch.equal(same, image)
    assert torch.equal(same_fields["mask"], fields["mask"])
    inverted, _ = build_transforms([lambda image, fields: (255 - image, fields)])(image, fields)
    assert torch.equal(inverted, 255 - image)


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (dict(type="RandomHorizontalFlop"), "Did you mean 'RandomHorizontalFlip'"),
        (dict(type="RandomHorizontalFlip", prob=1), "takes no 'prob'"),
        (dict(type="RandomHorizontalFlip", p=2.0), "RandomHorizontalFlip.*p"),
        (dict(type="RandomApply", transforms=[dict(type="Nothing")]), "Nothing"),
        (dict(type="RandomRatioResize", scale=512), "scale must be two positive"),
        (dict(type="RandomRatioResize", ratio=(2.0, 0.5)), "ratio"),
        (dict(type="RandomRatioResize", ratio=(0, 1)), "ratio"),
        (dict(type="RandomCategoryCrop", size=(0, 5)), "size"),
        (dict(type="RandomCategoryCrop", max_ratio=1.5), "max_ratio"),
        (dict(type="AlignedResize", divisor=0), "divisor"),
        (dict(type="PhotometricDistortion", hue=100), "hue"),
        (dict(type="PhotometricDistortion", contrast=(1.5, 0.5)), "contrast"),
        (dict(type="PhotometricDistortion", brightness=-1), "brightness"),
    ],
)
def test_wrong_names_and_values_are_config_errors(cfg: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_transforms([cfg])


def test_the_same_seed_gives_the_same_sample_and_draws_nothing_else() -> None:
    transform = build_transforms(TRAINING)
    random_state, numpy_state = random.getstate(), np.random.get_state()[1].copy()
    torch.manual_seed(5)
    image, fields = transform(*scene())
    torch.manual_seed(5)
    again, again_fields = transform(*scene())
    other, _ = transform(*scene())
    assert torch.equal(image, again)
    assert torch.equal(fields["mask"], again_fields["mask"])
    assert other.shape != image.shape or not torch.equal(other, image)
    assert random.getstate() == random_state
    assert np.array_equal(np.random.get_state()[1], numpy_state)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_training_transforms_make_no_new_ids_and_keep_the_types(dtype: torch.dtype) -> None:
    transform = build_transforms(TRAINING)
    for seed in range(20):
        torch.manual_seed(seed)
        image, fields = transform(*scene(dtype=dtype))
        mask = fields["mask"]
        assert set(mask.unique().tolist()) <= {0, 3, 7, 255}
        assert type(image) is tv_tensors.Image
        assert type(mask) is tv_tensors.Mask
        assert (image.dtype, mask.dtype) == (torch.uint8, dtype)
        assert image.shape[1:] == mask.shape


def test_image_and_mask_stay_aligned_through_resize_crop_and_flip() -> None:
    transform = build_transforms(TRAINING[:3])
    for seed in range(20):
        torch.manual_seed(seed)
        image, fields = transform(*scene())
        expected = fields["mask"].int() * 20 % 256
        assert ((image[0].int() - expected).abs() < 8).float().mean() > 0.8


def test_ratio_resize_keeps_the_aspect_and_both_bounds() -> None:
    sizes = set()
    transform = build(type="RandomRatioResize", scale=(96, 64), ratio=(0.5, 2.0))
    for seed in range(50):
        torch.manual_seed(seed)
        image, fields = transform(*scene(60, 90))
        height, width = image.shape[1:]
        assert fields["mask"].shape == (height, width)
        assert abs(width / height - 1.5) < 0.06
        sizes.add(width)
    assert 48 <= min(sizes) < 60
    assert 170 < max(sizes) <= 192


@pytest.mark.parametrize(
    ("space", "expected"), [((100, 50), (200, 100)), ((50, 400), (25, 200)), ((90, 100), (100, 111))]
)
def test_the_tighter_bound_decides_the_size(space: tuple[int, int], expected: tuple[int, int]) -> None:
    image, _ = build(type="RandomRatioResize", scale=(100, 200), ratio=(1.0, 1.0))(*scene(*space))
    assert tuple(image.shape[1:]) == expected


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("factor", [2, 3])
def test_masks_are_enlarged_pixel_by_pixel(dtype: torch.dtype, factor: int) -> None:
    mask = torch.arange(35, dtype=dtype).view(5, 7)
    expected = mask.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    assert torch.equal(resize_nearest(mask, (5 * factor, 7 * factor)), expected)


def test_category_crop_avoids_crops_of_one_class() -> None:
    mask = torch.zeros(100, 100, dtype=torch.uint8)
    mask[40:60, 40:60] = 1
    mask[:5] = 255
    fields = {"mask": tv_tensors.Mask(mask)}
    image = tv_tensors.Image(torch.zeros(3, 100, 100, dtype=torch.uint8))

    def share_of_varied(**options: Any) -> float:
        transform = build(type="RandomCategoryCrop", size=(24, 24), **options)
        varied = 0
        for seed in range(100):
            torch.manual_seed(seed)
            labels = transform(image, fields)[1]["mask"]
            labels = labels[labels != 255]
            varied += 0.25 < (labels == 1).float().mean() < 0.75
        return varied / 100

    assert share_of_varied(max_ratio=0.75) > 2 * share_of_varied(max_ratio=1.0)


def test_category_crop_ignores_unlabelled_pixels_whatever_their_id() -> None:
    mask = torch.full((60, 60), -1, dtype=torch.int64)
    mask[:, :30], mask[:4, :] = 0, 1
    transform = build(type="RandomCategoryCrop", size=(20, 20), ignore_index=-1)
    for seed in range(10):
        torch.manual_seed(seed)
        image = tv_tensors.Image(torch.zeros(3, 60, 60, dtype=torch.uint8))
        assert transform(image, {"mask": tv_tensors.Mask(mask)})[1]["mask"].shape == (20, 20)


def test_a_crop_larger_than_the_image_takes_all_of_it() -> None:
    image, fields = scene(30, 90)
    cropped, cropped_fields = build(type="RandomCategoryCrop", size=(50, 50))(image, fields)
    assert cropped.shape == (3, 30, 50)
    assert cropped_fields["mask"].shape == (30, 50)


@pytest.mark.parametrize(
    ("space", "expected"), [((60, 90), (128, 160)), ((33, 200), (32, 192)), ((200, 33), (192, 32))]
)
def test_aligned_resize_rounds_up_and_leaves_the_mask(space: tuple[int, int], expected: tuple[int, int]) -> None:
    image, fields = scene(*space)
    resized, same = build(type="AlignedResize", scale=(190, 100), divisor=32)(image, fields)
    assert tuple(resized.shape[1:]) == expected
    assert torch.equal(same["mask"], fields["mask"])


def distort(image: Tensor, seed: int = 0, **options: Any) -> Tensor:
    torch.manual_seed(seed)
    neutral = dict(brightness=0, contrast=(1, 1), saturation=(1, 1), hue=0)
    return build(type="PhotometricDistortion", **{**neutral, **options})(tv_tensors.Image(image))


@pytest.fixture
def colours() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 16, 24), dtype=np.uint8))


def test_neutral_distortion_changes_nothing(colours: Tensor) -> None:
    assert all(torch.equal(distort(colours, seed), colours) for seed in range(10))


def test_brightness_shifts_and_contrast_scales_and_both_saturate(colours: Tensor) -> None:
    shifts, factors = set(), set()
    middle = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    for seed in range(60):
        shifts.add(int(distort(middle, seed, brightness=32)[0, 0, 0]) - 100)
        factors.add(int(distort(middle, seed, contrast=(0.5, 1.5))[0, 0, 0]) / 100)
        bright = distort(colours, seed, brightness=32).int() - colours.int()
        assert bright.abs().max() <= 32
    assert 0 in shifts
    assert min(shifts) < -16
    assert 16 < max(shifts) <= 32
    assert 1.0 in factors
    assert 0.5 <= min(factors) < 0.75
    assert 1.25 < max(factors) <= 1.5


def test_saturation_leaves_gray_alone_and_hue_turns_by_18_degrees_of_180(colours: Tensor) -> None:
    gray = colours[:1].expand(3, -1, -1).contiguous()
    pure = np.array([[[255, 0, 0]]], np.uint8)
    turns = set()
    for seed in range(60):
        assert torch.equal(distort(gray, seed, saturation=(0.5, 1.5), hue=18), gray)
        turned = distort(torch.from_numpy(pure).permute(2, 0, 1), seed, hue=18).permute(1, 2, 0).numpy()
        turns.add(int(cv2.cvtColor(turned, cv2.COLOR_RGB2HSV)[0, 0, 0]))
    assert turns <= {*range(19), *range(162, 180)}
    assert len(turns) > 10
    weak = torch.stack([distort(colours, seed, saturation=(0.0, 0.0)) for seed in range(10)])
    assert any((image.int().amax(0) - image.int().amin(0)).max() == 0 for image in weak)


def test_distortion_refuses_images_that_are_no_longer_uint8() -> None:
    with pytest.raises(ConfigError, match="before transforms that change the type"):
        build(type="PhotometricDistortion")(tv_tensors.Image(torch.rand(3, 4, 4)))
