"""MONAI's transforms by name: defaults filled in, reproducible, and wrong configs told."""

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from densevit.data.volume_transforms import build_volume_transforms
from densevit.errors import ConfigError, DataError
from densevit.registry import VOLUME_TRANSFORMS

CROP = dict(type="RandCropByPosNegLabeld", spatial_size=(6, 6, 6))
RANDOM = [
    CROP,
    dict(type="RandFlipd", prob=0.5),
    dict(type="RandGaussianNoised", prob=0.5),
    dict(type="RandAffined", prob=0.5, rotate_range=0.3),
]


def items(channels: int = 1) -> dict[str, Any]:
    """Return a volume with a labelled block, both with a twisted affine."""
    affine = torch.tensor([[0, 0, 2, 5], [-1, 0, 0, 9], [0, 3, 0, 1], [0, 0, 0, 1]], dtype=torch.float64)
    mask = torch.zeros(1, 8, 9, 10, dtype=torch.uint8)
    mask[0, 2:5, 3:7, 4:8] = 3
    image = torch.rand(channels, 8, 9, 10, generator=torch.Generator().manual_seed(0)) + mask
    image = MetaTensor(image, affine=affine)
    image.meta["filename_or_obj"] = "a.nii"
    return {"image": image, "mask": MetaTensor(mask, affine=affine)}


def applied(*cfgs: dict[str, Any], channels: int = 1) -> dict[str, Any]:
    return build_volume_transforms(cfgs)(items(channels))


def test_monai_s_transforms_are_known_by_their_name() -> None:
    names = VOLUME_TRANSFORMS.names()
    assert {"Orientationd", "Spacingd", "RandRotate90d", "FgBgToIndicesd", "RandShiftIntensityd"} <= set(names)
    assert all(name.endswith("d") for name in names)


def test_space_is_transformed_for_both_and_intensity_for_the_image() -> None:
    result = applied(dict(type="Orientationd", axcodes="RAS"), dict(type="ScaleIntensityd", minv=5.0, maxv=6.0))
    assert result["image"].shape == result["mask"].shape == (1, 10, 8, 9)
    assert (result["image"].min(), result["image"].max()) == (5, 6)
    assert result["mask"].unique().tolist() == [0, 3]
    assert torch.equal(result["image"].affine, result["mask"].affine)


@pytest.mark.parametrize(
    "cfg",
    [
        dict(type="Spacingd", pixdim=(1.3, 1.1, 2.4)),
        dict(type="Spacingd", pixdim=(1.3, 1.1, 2.4), mode="bilinear"),
        dict(type="Zoomd", zoom=1.4),
        dict(type="Resized", spatial_size=(12, 13, 14)),
        dict(type="RandAffined", prob=1.0, rotate_range=0.5),
        dict(type="RandZoomd", prob=1.0, min_zoom=1.2, max_zoom=1.3),
    ],
)
def test_masks_take_the_nearest_voxel_where_images_are_interpolated(cfg: dict[str, Any]) -> None:
    result = applied(cfg)
    assert result["mask"].unique().tolist() == [0, 3]
    assert len(result["image"].unique()) > 100


def test_a_mode_per_key_stays_as_it_is() -> None:
    result = applied(dict(type="Spacingd", pixdim=(1.3, 1.1, 2.4), mode=("bilinear", "bilinear")))
    assert len(result["mask"].unique()) > 2


def test_indices_are_of_the_mask_and_the_background_of_what_is_bright_in_the_image() -> None:
    result = applied(dict(type="FgBgToIndicesd", image_threshold=0.5))
    labelled = result["mask"].flatten() > 0
    assert torch.equal(result["mask_fg_indices"].as_tensor(), labelled.nonzero()[:, 0].as_tensor())
    bright = ~labelled & (result["image"].flatten() > 0.5)
    assert torch.equal(result["mask_bg_indices"].as_tensor(), bright.nonzero()[:, 0].as_tensor())


def test_a_missing_mask_is_passed_over() -> None:
    spaces = [dict(type="Orientationd", axcodes="RAS"), dict(type="Spacingd", pixdim=(1, 1, 1))]
    cfgs = [*spaces, dict(type="CropForegroundd"), dict(type="FgBgToIndicesd")]
    result = build_volume_transforms(cfgs)({"image": items()["image"]})
    assert "mask" not in result
    assert torch.equal(result["image"], applied(*cfgs)["image"])


def test_channels_stay_together() -> None:
    assert applied(*RANDOM, channels=3)["image"].shape == (3, 6, 6, 6)


def test_every_draw_is_a_function_of_the_global_seed() -> None:
    transforms, seen = build_volume_transforms(RANDOM), []
    for seed in (0, 1, 2, 0, 1, 2):
        torch.manual_seed(seed)
        seen.append(transforms(items()))
    for first, again in zip(seen[:3], seen[3:], strict=True):
        assert torch.equal(first["image"], again["image"])
        assert torch.equal(first["mask"], again["mask"])
    assert not torch.equal(seen[0]["image"], seen[1]["image"])
    torch.manual_seed(0)
    np.random.seed(7)
    assert torch.equal(build_volume_transforms(RANDOM)(items())["image"], seen[0]["image"])


def test_randomness_is_known() -> None:
    assert build_volume_transforms(RANDOM).random
    assert not build_volume_transforms([dict(type="Orientationd", axcodes="RAS")]).random


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (dict(type="Orientatoind", axcodes="RAS"), "Did you mean 'Orientationd'"),
        (dict(type="Orientation", axcodes="RAS"), "Did you mean 'Orientationd'"),
        (dict(type="subprocess.run"), "is not a registered"),
        (dict(type="Spacingd", pixdims=(1, 1, 1)), "Did you mean 'pixdim'"),
        (dict(type="Spacingd"), "'Spacingd': .*pixdim"),
        (dict(CROP, num_samples=4), "num_samples must be 1.*repeats"),
        (dict(CROP, pos=-1), "'RandCropByPosNegLabeld': .*nonnegative"),
    ],
)
def test_wrong_configs_are_config_errors(cfg: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_volume_transforms([cfg])


def test_a_volume_that_a_transform_cannot_take_is_named() -> None:
    with pytest.raises(DataError, match=r"a\.nii: RandCropByPosNegLabeld cannot be applied: .*larger"):
        applied(dict(CROP, spatial_size=(16, 16, 16)))
