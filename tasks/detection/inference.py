"""Test-time augmentation of detectors."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from densevit.errors import ConfigError
from densevit.registry import MODELS
from densevit.tasks.detection.head import View


@MODELS.register_module()
class DetectionTTA:
    """Objects found at several scales and in the mirror image are put together before suppression; masks are averaged.

    Args:
        scales: Factors to the size of the input; each side is rounded up to a multiple of 32.
        flip: Also run the mirror image.

    Raises:
        ConfigError: No scale, or one that is not positive.
    """

    def __init__(self, scales: Sequence[float] = (0.75, 1.0, 1.25), flip: bool = True) -> None:
        if not scales or min(scales) <= 0:
            raise ConfigError(f"DetectionTTA: scales must be positive, not {tuple(scales)}")
        self.scales, self.flips = tuple(scales), (False, True) if flip else (False,)

    def __call__(self, network: Callable[[Tensor], Any], x: Tensor) -> list[View]:
        """Return what the head gives for each view."""
        views = []
        for scale in self.scales:
            size = tuple(x.shape[2:]) if scale == 1 else tuple(-(-round(n * scale) // 32) * 32 for n in x.shape[2:])
            scaled = x if scale == 1 else F.interpolate(x, size, mode="bilinear", antialias=True)
            views += [View(network(scaled.flip(-1) if flip else scaled), size, flip) for flip in self.flips]
        return views
