"""Transforms of a sample before it is batched, by name in TRANSFORMS: those of torchvision v2, and ours.

They take ``(image, fields)`` with torchvision's tv_tensors in them and treat both alike. Every random draw is from
torch's global generator, so that seeding it reproduces a sample. Sizes are (height, width).
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from densevit.data.boxes import LargeScaleJitter, RandomSizeCrop, SanitizeObjects, ShortSideResize
from densevit.data.erasing import NoiseErasing
from densevit.data.frame_difference import FrameDifference
from densevit.data.photometric import PhotometricDistortion
from densevit.data.resize import ImageSize, fitted_size, resize_nearest
from densevit.errors import ConfigError
from densevit.registry import TRANSFORMS

Transform = Callable[..., Any]

for _name, _class in inspect.getmembers(v2, inspect.isclass):
    if issubclass(_class, v2.Transform) and _class is not v2.Transform:
        TRANSFORMS.register_module(name=_name, module=_class)
for _class in (
    FrameDifference,
    LargeScaleJitter,
    NoiseErasing,
    PhotometricDistortion,
    RandomSizeCrop,
    SanitizeObjects,
    ShortSideResize,
):
    TRANSFORMS.register_module(module=_class)


def build_transforms(cfgs: Sequence[Mapping[str, Any] | Transform]) -> v2.Transform:
    """Chain transforms, given as configs or as callables that take and return ``(image, fields)``.

    The list under "transforms" of a config, as in RandomApply and RandomChoice, is built too; "interpolation" is
    given by name.

    Raises:
        ConfigError: An unknown name or key, or a value that the transform refuses.
    """
    transforms = [_build(cfg) for cfg in cfgs]
    return v2.Compose(transforms) if transforms else v2.Identity()


def _build(cfg: Mapping[str, Any] | Transform) -> Transform:
    if not isinstance(cfg, Mapping):
        return cfg
    if "transforms" in cfg:
        cfg = {**cfg, "transforms": [_build(inner) for inner in cfg["transforms"]]}
    try:
        if isinstance(cfg.get("interpolation"), str):
            cfg = {**cfg, "interpolation": v2.InterpolationMode(cfg["interpolation"])}
        return TRANSFORMS.build(cfg)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"transform {cfg['type']!r}: {error}") from error


@TRANSFORMS.register_module()
class RandomRatioResize(v2.Transform):
    """Resize, keeping the aspect, to fit into ``scale`` times a random ratio.

    With ``RandomCategoryCrop``, a flip and ``PhotometricDistortion`` this is the training pipeline of
    SegFormer (https://arxiv.org/abs/2105.15203, section 4.1).

    Args:
        scale: Bounds of the longer and the shorter side, in either order.
        ratio: Range from which the factor on ``scale`` is drawn uniformly.
    """

    def __init__(self, scale: Sequence[int] = (2048, 512), ratio: Sequence[float] = (0.5, 2.0)) -> None:
        super().__init__()
        self.scale = _pair("scale", scale)
        self.ratio = _pair("ratio", ratio)
        if self.ratio[0] > self.ratio[1]:
            raise ConfigError(f"ratio {ratio} is not a range (low, high)")

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        low, high = self.ratio
        ratio = low + (high - low) * torch.rand(()).item()
        return {"size": fitted_size(v2.query_size(flat_inputs), self.scale, ratio)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, tv_tensors.Mask):
            return tv_tensors.wrap(resize_nearest(inpt, params["size"]), like=inpt)
        return self._call_kernel(F.resize, inpt, params["size"])


@TRANSFORMS.register_module()
class AlignedResize(v2.Transform):
    """Resize the image for testing, keeping the aspect but for rounding each side up to a multiple of ``divisor``.

    Labels keep their size: predictions are compared at the original size.

    Args:
        scale: Bounds of the longer and the shorter side, in either order; rounding up may exceed them.
        divisor: Of both sides.
    """

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, scale: Sequence[int] = (2048, 512), divisor: int = 32) -> None:
        super().__init__()
        self.scale = _pair("scale", scale)
        self.divisor = divisor
        if divisor < 1:
            raise ConfigError(f"divisor must be at least 1, not {divisor}")

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        size = fitted_size(inpt.shape[-2:], self.scale)
        return F.resize(inpt, [math.ceil(side / self.divisor) * self.divisor for side in size])


@TRANSFORMS.register_module()
class RandomCategoryCrop(v2.Transform):
    """Crop at random, at most to ``size``, and prefer crops that several classes share.

    A crop is drawn up to ten times, until it shows two classes or more and none of them covers ``max_ratio`` of the
    labelled pixels. Smaller images are not padded: the preprocessor does that. Without a mask any crop will do.

    Args:
        size: Height and width.
        max_ratio: Share of the labelled pixels that no class is to reach.
        ignore_index: Label of pixels that do not count.
    """

    tries = 10

    def __init__(self, size: Sequence[int] = (512, 512), max_ratio: float = 0.75, ignore_index: int = 255) -> None:
        super().__init__()
        self.size = _pair("size", size)
        self.max_ratio = max_ratio
        self.ignore_index = ignore_index
        if not 0 < max_ratio <= 1:
            raise ConfigError(f"max_ratio must be in (0, 1], not {max_ratio}")

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        space = v2.query_size(flat_inputs)
        mask = next((x for x in flat_inputs if isinstance(x, tv_tensors.Mask)), None)
        for _ in range(self.tries):
            box = self._draw(space)
            if mask is None or self._is_varied(F.crop_mask(mask.as_subclass(Tensor), *box.values())):
                break
        return box

    def _draw(self, space: Sequence[int]) -> dict[str, int]:
        height, width = (min(int(side), n) for side, n in zip(self.size, space, strict=True))
        top, left = (int(torch.randint(n - side + 1, ())) for side, n in zip((height, width), space, strict=True))
        return {"top": top, "left": left, "height": height, "width": width}

    def _is_varied(self, mask: Tensor) -> bool:
        if self.max_ratio == 1:
            return True
        labelled = mask.flatten() if self.ignore_index >= 0 else mask[mask >= 0]
        counts = torch.bincount(labelled, minlength=max(0, self.ignore_index + 1))
        if self.ignore_index >= 0:  # five times as fast as leaving the pixels out before
            counts[self.ignore_index] = 0
        return bool((counts > 0).sum() > 1 and counts.max() < self.max_ratio * counts.sum())

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._call_kernel(F.crop, inpt, **params)


@TRANSFORMS.register_module()
class MultiScaleCrop(v2.RandomResizedCrop):
    """RandomResizedCrop to the size that the batch has, see `MultiScaleBatchSampler`.

    Args:
        size: Height and width, or the side of a square, where the batch has none.
        scale: Least and largest share of the area of the image.
        ratio: Least and largest width over height.
        interpolation: How pixels are interpolated.
        antialias: Whether they are smoothed where the crop is made smaller.
    """

    _transformed_types = (*v2.RandomResizedCrop._transformed_types, ImageSize)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        size = next(([x, x] for x in flat_inputs if isinstance(x, ImageSize)), self.size)
        return {**super().make_params(flat_inputs), "size": size}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._call_kernel(
            F.resized_crop, inpt, **params, interpolation=self.interpolation, antialias=self.antialias
        )


def _pair(name: str, values: Sequence[float]) -> tuple[float, float]:
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != 2 or min(values) <= 0:
        raise ConfigError(f"{name} must be two positive numbers, not {values!r}")
    return values[0], values[1]
