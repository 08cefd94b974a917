"""Random erasing of bytes: torchvision's fills with floats of mean 0, which uint8 images turn into black."""

from collections.abc import Sequence
from typing import Any

import torch
from torchvision.transforms import v2


class NoiseErasing(v2.RandomErasing):
    """Replace a random rectangle by noise, another colour in every pixel, before the image is normalised.

    Random Erasing (https://arxiv.org/abs/1708.04896) as DeiT uses it. The noise is normal with the statistics of
    the pixels; its values, 2.1 standard deviations and more from the mean, that a byte cannot hold are clipped.

    Args:
        p: Probability that anything is erased.
        scale: Range of the share of the area that is erased.
        ratio: Range of height / width of the rectangle, drawn uniformly in its logarithm.
        mean: Of the noise per channel, for values of 0..255. The default is ImageNet's.
        std: Likewise.
    """

    def __init__(
        self,
        p: float = 0.25,
        scale: Sequence[float] = (0.02, 1 / 3),
        ratio: Sequence[float] = (0.3, 3.3),
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
    ) -> None:
        super().__init__(p, scale, ratio, value="random")
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        params = super().make_params(flat_inputs)
        if (noise := params["v"]) is not None:  # None: no rectangle fitted in ten tries
            params["v"] = (noise * self.std + self.mean).round().clamp(0, 255).to(torch.uint8)
        return params
