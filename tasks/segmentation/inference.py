"""Ways to run a segmentation network on an image other than once and whole."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from densevit.errors import ConfigError
from densevit.registry import MODELS

Network = Callable[[Tensor], Tensor]


@MODELS.register_module()
class SlideInference:
    """Overlapping windows, several in a batch, blended by weights that fall off towards their borders.

    Logits are blended at the resolution of the head: a sixteenth of the memory of the image's, for SegFormer.

    Args:
        window: ``(H, W)`` of a window, multiples of 32; an image that fits into one is run whole.
        stride: ``(H, W)`` between windows, multiples of 32.
        batch_size: Windows that are run together.
    """

    def __init__(
        self, window: Sequence[int] = (512, 512), stride: Sequence[int] = (352, 352), batch_size: int = 4
    ) -> None:
        if any(n % 32 or n < 32 for n in (*window, *stride)):
            raise ConfigError(f"SlideInference: window={window} and stride={stride} must be multiples of 32")
        if any(s > w for s, w in zip(stride, window, strict=True)):
            raise ConfigError(f"SlideInference: stride={stride} leaves gaps between windows of {window}")
        self.window, self.stride, self.batch_size = tuple(window), tuple(stride), batch_size

    def __call__(self, network: Network, x: Tensor) -> Tensor:
        """Return logits ``(N, K, h, w)`` on the grid that ``network(x)`` would have."""
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % 32, 0, -height % 32))
        window = [min(n, size) for n, size in zip(self.window, x.shape[2:], strict=True)]
        corners = [
            (top, left)
            for top in _starts(x.shape[2], window[0], self.stride[0])
            for left in _starts(x.shape[3], window[1], self.stride[1])
        ]
        total = weight = x.new_zeros(())
        scale, ramp = 1, x
        for index, (image, (top, left), logits) in enumerate(self._run(network, x, corners, window)):
            if index == 0:
                scale = window[0] // logits.shape[1]
                ramp = torch.outer(_ramp(logits.shape[1]), _ramp(logits.shape[2])).to(logits)
                total = logits.new_zeros(len(x), len(logits), x.shape[2] // scale, x.shape[3] // scale)
                weight = torch.zeros_like(total[:, :1])
            rows = slice(top // scale, (top + window[0]) // scale)
            columns = slice(left // scale, (left + window[1]) // scale)
            total[image, :, rows, columns] += logits * ramp
            weight[image, :, rows, columns] += ramp
        blended = total / weight
        return blended[:, :, : -(-height // scale), : -(-width // scale)]

    def _run(self, network: Network, x: Tensor, corners: list[tuple[int, int]], window: list[int]) -> Any:
        """Yield (image, corner, logits of the window) for every window of every image."""
        places = [(image, corner) for image in range(len(x)) for corner in corners]
        for start in range(0, len(places), self.batch_size):
            chunk = places[start : start + self.batch_size]
            views = [x[i, :, top : top + window[0], left : left + window[1]] for i, (top, left) in chunk]
            for (image, corner), logits in zip(chunk, _map(network, torch.stack(views)).float(), strict=True):
                yield image, corner, logits


@MODELS.register_module()
class TestTimeAugment:
    """Mean of the class probabilities over several scales and the mirror image, at the size of the input.

    Args:
        scales: Factors to the size of the input; each size is rounded up to a multiple of 32.
        flip: Also run the mirror image.
        inference: Config of how each is run, `SlideInference` for instance; whole by default.
    """

    __test__ = False  # not a test, whatever pytest makes of its name

    def __init__(
        self,
        scales: Sequence[float] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
        flip: bool = True,
        inference: dict[str, Any] | None = None,
    ) -> None:
        self.scales, self.flips = tuple(scales), (False, True) if flip else (False,)
        self.inference: Callable[..., Tensor] | None = MODELS.build(inference) if inference else None

    def __call__(self, network: Network, x: Tensor) -> Tensor:
        """Return log-probabilities ``(N, K, H, W)``."""
        total = x.new_zeros(())
        for scale in self.scales:
            size = [-(-round(n * scale) // 32) * 32 for n in x.shape[2:]]
            scaled = F.interpolate(x, size, mode="bilinear", antialias=True)
            for flip in self.flips:
                view = scaled.flip(-1) if flip else scaled
                logits = self.inference(network, view) if self.inference else _map(network, view)
                logits = F.interpolate(logits.float(), x.shape[2:], mode="bilinear")
                probabilities = logits.softmax(1)
                total = total + (probabilities.flip(-1) if flip else probabilities)
        return (total / (len(self.scales) * len(self.flips))).log()


def _map(network: Network, x: Tensor) -> Tensor:
    logits: Any = network(x)
    if not isinstance(logits, Tensor) or logits.ndim != 4:
        raise ConfigError(
            "windows and test-time augmentation are for heads that give maps: "
            "leave out --slide and --tta, or model.inference"
        )
    return logits


def _starts(size: int, window: int, stride: int) -> list[int]:
    """First cells of windows that cover ``size``; the last one ends with it."""
    return [*range(0, size - window, stride), size - window]


def _ramp(size: int) -> Tensor:
    """Weights that rise linearly from the borders to the middle, none of them zero."""
    distance = torch.arange(size) + 0.5
    return torch.minimum(distance, size - distance)
