"""What a segmentation model predicts for one image."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SegPrediction:
    """``mask`` is ``(H, W)`` at the original size of the image: class indices, uint8 or int16, on the CPU."""

    mask: Tensor
