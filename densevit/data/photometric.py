"""Photometric distortion of SSD, for uint8 images.

Paper: https://arxiv.org/abs/1512.02325, with the values that segmentation uses since.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from densevit.errors import ConfigError


class PhotometricDistortion(v2.Transform):
    """Distort brightness, contrast, saturation and hue, each with probability one half.

    Contrast changes either before or after saturation and hue, by chance. Every step is a table of 256 values,
    which makes it several times faster than arithmetic on floats; each rounds to uint8 as the steps of the recipe do.

    Args:
        brightness: Largest shift up or down, of 255.
        contrast: Range of the factor on all channels.
        saturation: Range of the factor on the saturation of HSV.
        hue: Largest turn of the hue, of OpenCV's 180.
    """

    _transformed_types = (tv_tensors.Image,)

    def __init__(
        self,
        brightness: float = 32,
        contrast: Sequence[float] = (0.5, 1.5),
        saturation: Sequence[float] = (0.5, 1.5),
        hue: int = 18,
    ) -> None:
        super().__init__()
        for name, value, top in [("brightness", brightness, 255), ("hue", hue, 90)]:
            if not 0 <= value <= top:
                raise ConfigError(f"{name} must be between 0 and {top}, not {value}")
        for name, factors in [("contrast", contrast), ("saturation", saturation)]:
            if len(factors) != 2 or not 0 <= factors[0] <= factors[1]:
                raise ConfigError(f"{name} must be a range (low, high) of factors, not {factors}")
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        coins = (torch.rand(5) < 0.5).tolist()
        brightness = _uniform(-self.brightness, self.brightness) if coins[0] else 0.0
        contrast = _uniform(*self.contrast) if coins[1] else 1.0
        saturation = _uniform(*self.saturation) if coins[2] else 1.0
        hue = int(torch.randint(-self.hue, self.hue + 1, ())) if coins[3] else 0
        first, last = (contrast, 1.0) if coins[4] else (1.0, contrast)
        return {"brightness": brightness, "first": first, "saturation": saturation, "hue": hue, "last": last}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if inpt.dtype != torch.uint8 or inpt.ndim != 3 or len(inpt) != 3:
            raise ConfigError(
                f"PhotometricDistortion takes uint8 RGB (3, H, W), not {inpt.dtype} {tuple(inpt.shape)}; "
                "put it before transforms that change the type"
            )
        pixels = np.ascontiguousarray(inpt.as_subclass(Tensor).permute(1, 2, 0).numpy())
        levels = np.arange(256)
        pixels = _look_up(pixels, _uint8(_uint8(levels + params["brightness"]) * params["first"]))
        if params["hue"] or params["saturation"] != 1:
            hue = ((levels + params["hue"]) % 180).astype(np.uint8)
            table = np.stack([hue, _uint8(levels * params["saturation"]), levels.astype(np.uint8)], axis=1)
            hsv = cv2.LUT(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV), table[:, None])
            pixels = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        pixels = _look_up(pixels, _uint8(levels * params["last"]))
        return tv_tensors.wrap(torch.from_numpy(pixels).permute(2, 0, 1), like=inpt)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _uint8(levels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _look_up(pixels: np.ndarray, table: np.ndarray) -> np.ndarray:
    return pixels if np.array_equal(table, np.arange(256)) else cv2.LUT(pixels, table)
