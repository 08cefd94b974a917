"""MONAI's transforms of volumes by name, with what need not be said filled in.

They take and return ``{"image": (C, D, H, W), "mask": (1, D, H, W)}`` of MetaTensors; the mask may be missing. Every
random draw comes from torch's global generator, so that seeding it reproduces a sample.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai import transforms as monai_transforms
from monai.transforms import MapTransform, Randomizable

from densevit.errors import ConfigError, DataError
from densevit.registry import VOLUME_TRANSFORMS

PARTS = ("croppad", "intensity", "smooth_field", "spatial", "utility")  # of MONAI, where these transforms are
IMAGE_ONLY = {
    "ImageFilterd",
    "RandImageFilterd",
    "RandSmoothFieldAdjustContrastd",
    "RandSmoothFieldAdjustIntensityd",
}
MASK_ONLY = {"ClassesToIndicesd", "FgBgToIndicesd", "LabelToMaskd", "MapLabelValued"}
NAMED = {
    "allow_missing_keys": True,
    "image_key": "image",
    "label_key": "mask",
    "labels": (("L", "R"), ("P", "A"), ("I", "S")),  # of Orientationd, which warns if it is not told
    "source_key": "image",
}
SMOOTH = {"GridSampleMode": "bilinear", "InterpolateMode": "trilinear"}  # by the type of a default of ``mode``
Items = dict[str, Any]

for _name, _class in inspect.getmembers(monai_transforms, inspect.isclass):
    if issubclass(_class, MapTransform) and _name.endswith("d") and _class.__module__.split(".")[2] in PARTS:
        VOLUME_TRANSFORMS.register_module(name=_name, module=_class)


class VolumeTransforms:
    """A chain of transforms.

    Attributes:
        random: Whether any of them draws.
    """

    def __init__(self, transforms: Sequence[MapTransform]) -> None:
        self._transforms = list(transforms)
        self.random = any(isinstance(transform, Randomizable) for transform in transforms)

    def __call__(self, items: Items) -> Items:
        """Return what becomes of a sample.

        Raises:
            DataError: A transform cannot be applied to it.
        """
        path = items["image"].meta.get("filename_or_obj", "a volume")
        for transform in self._transforms:
            if isinstance(transform, Randomizable):  # its own generator goes on from call to call
                transform.set_random_state(seed=int(torch.randint(2**31, ())))
            try:
                result: Any = transform(items)
            except Exception as error:  # MONAI raises what it likes
                raise DataError(f"{path}: {type(transform).__name__} cannot be applied: {error}") from error
            items = result[0] if isinstance(result, list) else result
        return items


def build_volume_transforms(cfgs: Sequence[Mapping[str, Any]]) -> VolumeTransforms:
    """Chain transforms of volumes.

    Configs need not say ``keys``: intensities are of the image, indices of the mask, all else is of both. Nor
    ``mode``: images are interpolated linearly and masks take the nearest voxel; a single mode is that of the image.
    ``label_key`` is the mask, ``image_key`` and ``source_key`` are the image, and a missing mask is passed over.

    Raises:
        ConfigError: An unknown name or key, a value that the transform refuses, or several samples from one.
    """
    return VolumeTransforms([_build(cfg) for cfg in cfgs])


def _build(cfg: Mapping[str, Any]) -> MapTransform:
    VOLUME_TRANSFORMS.check(cfg)
    kind = VOLUME_TRANSFORMS.get(cfg["type"])
    given = {key: value for key, value in cfg.items() if key != "type"}
    try:
        return kind(**_complete(cfg["type"], kind, given))
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"transform {cfg['type']!r}: {error}") from error


def _complete(name: str, kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments, with what a config leaves out and a ``mode`` for each key."""
    known = inspect.signature(kind).parameters
    defaults = {key: value for key, value in NAMED.items() if key in known}
    of_image = name in IMAGE_ONLY or ".intensity." in kind.__module__
    defaults["keys"] = ("image",) if of_image else ("mask",) if name in MASK_ONLY else ("image", "mask")
    if "num_samples" in known:
        defaults["num_samples"] = 1
        if given.get("num_samples", 1) != 1:
            raise ConfigError(
                f"transform {name!r}: num_samples must be 1; several crops of a volume are train_dataloader.repeats"
            )
    arguments = {**defaults, **given}
    smooth = SMOOTH.get(type(known["mode"].default).__name__) if "mode" in known else None
    if smooth is not None and not of_image and isinstance(mode := given.get("mode", smooth), str):
        keys = arguments["keys"]
        arguments["mode"] = [
            "nearest" if key == "mask" else mode for key in ([keys] if isinstance(keys, str) else keys)
        ]
    return arguments
