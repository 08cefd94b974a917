"""Transforms of images with objects: boxes, masks ``(n, H, W)`` and what else a BoxTarget has.

With torchvision's flip, and RandomChoice of lists of them, these make the pipelines of RetinaNet, Mask R-CNN, DETR and
ViTDet. An image may come to have no object. Every random draw is from torch's global generator.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from densevit.data.resize import fitted_size, resize_nearest
from densevit.errors import ConfigError

PER_OBJECT = ("boxes", "labels", "crowd", "area", "masks")


class ShortSideResize(v2.Transform):
    """Resize, keeping the aspect, so that the shorter side is one of ``sizes`` unless the longer would pass a bound.

    Sides are rounded half up, as in mmdetection and Detectron2; boxes are scaled by the ratios of the rounded sides.

    Args:
        sizes: Shorter sides, in pixels, of which one is drawn; or one.
        max_size: Bound of the longer side, in pixels.
    """

    def __init__(self, sizes: int | Sequence[int], max_size: int = 1333) -> None:
        super().__init__()
        self.sizes = [sizes] if isinstance(sizes, int) else list(sizes)
        self.max_size = max_size
        if not self.sizes or min(self.sizes) < 1 or max(self.sizes) > max_size:
            raise ConfigError(f"sizes must be positive and not above max_size {max_size}, not {sizes}")

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        size = self.sizes[int(torch.randint(len(self.sizes), ()))]
        return {"size": fitted_size(v2.query_size(flat_inputs), (self.max_size, size))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return _resize(self, inpt, params["size"])


class RandomSizeCrop(v2.Transform):
    """Crop at random to a random height and width; smaller images keep their side. As in DETR, section A.4.

    Objects that end up outside become empty boxes: `SanitizeObjects` drops them.

    Paper: https://arxiv.org/abs/2005.12872.

    Args:
        min_size: Least height and width, in pixels.
        max_size: Largest.
    """

    def __init__(self, min_size: int = 384, max_size: int = 600) -> None:
        super().__init__()
        self.min_size, self.max_size = min_size, max_size
        if not 1 <= min_size <= max_size:
            raise ConfigError(f"min_size {min_size} and max_size {max_size} must be positive and in this order")

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.query_size(flat_inputs)
        return _draw_window((height, width), (self._draw(height), self._draw(width)))

    def _draw(self, side: int) -> int:
        low, high = min(side, self.min_size), min(side, self.max_size)
        return int(torch.randint(low, high + 1, ()))

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._call_kernel(F.crop, inpt, **params)


class LargeScaleJitter(v2.Transform):
    """Resize, keeping the aspect, to fit into a square of ``size`` times a random factor; of that crop ``size``.

    What is smaller stays so: the preprocessor pads it to the right and below. The crop is made first, to whole pixels
    of the image as it was: the same but for rounding, and nothing is enlarged to be cut off.

    Paper: https://arxiv.org/abs/2012.07177.

    Args:
        size: Largest height and width of the result, in pixels.
        scale: Range from which the factor is drawn uniformly.
    """

    def __init__(self, size: int = 1024, scale: Sequence[float] = (0.1, 2.0)) -> None:
        super().__init__()
        self.size, self.scale = size, tuple(scale)
        if size < 1 or len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"size must be positive and scale a range (low, high), not {size} and {scale}")

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        space = v2.query_size(flat_inputs)
        low, high = self.scale
        ratio = low + (high - low) * torch.rand(()).item()
        resized = fitted_size(space, (self.size, self.size), ratio)
        size = [min(side, self.size) for side in resized]
        window = [max(1, round(n * s / r)) for n, s, r in zip(space, size, resized, strict=True)]
        return {"window": _draw_window(space, window), "size": size}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return _resize(self, self._call_kernel(F.crop, inpt, **params["window"]), params["size"])


class SanitizeObjects(torch.nn.Module):
    """Clip boxes to the image and drop objects of which too little is left, from all fields.

    Args:
        min_size: Least width and height of a box, in pixels.
        boxes_from_masks: Make the boxes anew, as those of the masks: after a crop they are tighter.
    """

    def __init__(self, min_size: float = 1.0, boxes_from_masks: bool = False) -> None:
        super().__init__()
        self.min_size, self.boxes_from_masks = min_size, boxes_from_masks

    def forward(self, image: Tensor, fields: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        if "boxes" not in fields:
            raise ConfigError("SanitizeObjects is for samples with boxes: leave it out")
        boxes, masks = F.clamp_bounding_boxes(fields["boxes"]), fields["masks"]
        if self.boxes_from_masks and masks is None:
            raise ConfigError("SanitizeObjects: boxes_from_masks needs masks: set masks=True of the dataset")
        if masks is not None:
            tight = _mask_boxes(masks)
            if self.boxes_from_masks:
                boxes = tv_tensors.wrap(tight, like=boxes)
        sides = (boxes[:, 2:] - boxes[:, :2]).as_subclass(Tensor)
        keep = (sides >= self.min_size).all(1) & (sides > 0).all(1)
        if masks is not None:
            keep &= tight[:, 2] > 0
        fields = {**fields, "boxes": boxes}
        if not keep.all():
            fields.update({name: _select(fields[name], keep) for name in PER_OBJECT if fields[name] is not None})
        return image, fields


def _resize(transform: v2.Transform, inpt: Any, size: list[int]) -> Any:
    if isinstance(inpt, tv_tensors.Mask):
        return tv_tensors.wrap(resize_nearest(inpt, size), like=inpt)
    return transform._call_kernel(F.resize, inpt, size)


def _draw_window(space: Sequence[int], window: Sequence[int]) -> dict[str, int]:
    """Return the arguments of a crop of ``window`` at a random place."""
    top, left = (int(torch.randint(n - side + 1, ())) for n, side in zip(space, window, strict=True))
    return {"top": top, "left": left, "height": window[0], "width": window[1]}


def _mask_boxes(masks: Tensor) -> Tensor:
    """Return the tight boxes ``(n, 4)`` float32 of masks ``(n, H, W)`` uint8; zeros of an empty one."""
    boxes = np.array([cv2.boundingRect(mask) for mask in masks.as_subclass(Tensor).numpy()], np.float32)
    boxes = boxes.reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return torch.from_numpy(boxes)


def _select(values: Tensor, keep: Tensor) -> Tensor:
    chosen = values.as_subclass(Tensor)[keep]
    return tv_tensors.wrap(chosen, like=values) if isinstance(values, tv_tensors.TVTensor) else chosen
