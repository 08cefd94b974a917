"""Volumes of any size by overlapping windows, in memory that does not grow with their length."""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from densevit.errors import ConfigError
from densevit.registry import MODELS

Network = Callable[[Tensor], Any]
Corner = tuple[int, ...]


@MODELS.register_module()
class SlidingVolume:
    """Overlapping windows, several in a batch, blended by Gaussian weights, as MONAI's ``sliding_window_inference``.

    Windows are run in the order of their place along the longest axis of the volume. Logits are held of one window's
    length along that axis; what no further window reaches becomes labels at once. So the logits of a CT of 512 x 512
    x 300 voxels in 14 classes, 4 GB, are never held.

    Args:
        window: ``(D, H, W)`` of a window; a smaller volume is padded by zeros on both sides.
        overlap: Of neighbouring windows, as a share of their length.
        batch_size: Windows that are run together.
        sigma_scale: Standard deviation of the weights, as a share of the window's length.
        flips: Axes, 0 to 2, along which windows are mirrored; logits are averaged over all combinations.
        logits: Return logits, not labels, for which all of them are held.

    Raises:
        ConfigError: A number is out of its range.
    """

    def __init__(
        self,
        window: Sequence[int] = (96, 96, 96),
        overlap: float = 0.5,
        batch_size: int = 4,
        sigma_scale: float = 0.125,
        flips: Sequence[int] = (),
        logits: bool = False,
    ) -> None:
        if len(window) != 3 or min(*window, batch_size) < 1 or not 0 <= overlap < 1 or sigma_scale <= 0:
            raise ConfigError(
                "SlidingVolume: window is three positive numbers, batch_size and sigma_scale are positive and overlap "
                f"is in [0, 1), not {tuple(window)}, {batch_size}, {sigma_scale} and {overlap}"
            )
        if sorted(flips) != sorted({0, 1, 2} & set(flips)):
            raise ConfigError(f"SlidingVolume: flips are different axes, 0 to 2, not {tuple(flips)}")
        self.window, self.overlap, self.batch_size, self.sigma_scale = tuple(window), overlap, batch_size, sigma_scale
        self.mirrors = [[2 + i for i in axes] for n in range(1, len(flips) + 1) for axes in combinations(flips, n)]
        self.logits = logits

    def __call__(self, network: Network, x: Tensor) -> Tensor:
        """Return labels ``(N, D, H, W)``, uint8 for up to 256 classes, or logits ``(N, K, D, H, W)`` in fp32.

        Raises:
            ConfigError: The network does not give a map of the size of its input.
        """
        return torch.stack([self._run(network, volume) for volume in x])

    def _run(self, network: Network, x: Tensor) -> Tensor:
        """Return labels or logits of a volume ``(C, D, H, W)``."""
        gaps = [max(0, w - n) for w, n in zip(self.window, x.shape[1:], strict=True)]
        if any(gaps):
            x = F.pad(x, [side for gap in reversed(gaps) for side in (gap // 2, gap - gap // 2)])
        space = tuple(x.shape[1:])
        axis = space.index(max(space))
        blend: _Blend | None = None
        for corner, logits in self._windows(network, x, axis):
            if blend is None:
                weights = _weights(self.window, self.sigma_scale).to(logits)
                blend = _Blend(space, axis, weights, len(logits), self.logits)
            blend.add(corner, logits)
        assert blend is not None, "there is a window at least"
        found = blend.finish()
        for i, gap in enumerate(gaps, start=found.ndim - 3):
            found = found.narrow(i, gap // 2, found.shape[i] - gap)
        return found

    def _windows(self, network: Network, x: Tensor, axis: int) -> Iterator[tuple[Corner, Tensor]]:
        """Yield the corner and the logits of each window, in their order along an axis."""
        starts = [_starts(n, w, self.overlap) for n, w in zip(x.shape[1:], self.window, strict=True)]
        corners = sorted(product(*starts), key=lambda corner: corner[axis])
        for first in range(0, len(corners), self.batch_size):
            chunk = corners[first : first + self.batch_size]
            batch = torch.stack([x[_region(corner, self.window)] for corner in chunk])
            yield from zip(chunk, self._mean(network, batch), strict=True)

    def _mean(self, network: Network, x: Tensor) -> Tensor:
        """Return the mean of the logits of a batch over its mirror images, in fp32."""
        total = _logits(network, x)
        for axes in self.mirrors:
            total = total + _logits(network, x.flip(axes)).flip(axes)
        return total / (1 + len(self.mirrors)) if self.mirrors else total


class _Blend:
    """Weighted sums of logits over the stretch of an axis that the windows at hand cover; before it, all is done.

    Args:
        space: Of the volume.
        axis: Along which windows come in order.
        weights: Of the voxels of a window.
        num_classes: Number of logits.
        keep: Give blended logits, not labels.
    """

    def __init__(self, space: tuple[int, ...], axis: int, weights: Tensor, num_classes: int, keep: bool) -> None:
        self.axis, self.weights, self.start = axis, weights, 0
        self.length = weights.shape[axis]
        stretch = (*space[:axis], self.length, *space[axis + 1 :])
        self.sums = weights.new_zeros(num_classes, *stretch)
        # The largest logit is the same with and without the division by these.
        self.totals = weights.new_zeros(stretch) if keep else None
        dtype = torch.uint8 if num_classes <= 256 else torch.int16
        self.found = self.sums.new_zeros(num_classes, *space) if keep else self.sums.new_zeros(space, dtype=dtype)

    def add(self, corner: Corner, logits: Tensor) -> None:
        """Add the logits ``(K, d, h, w)`` of a window."""
        self._advance(corner[self.axis] - self.start)
        corner = (*corner[: self.axis], 0, *corner[self.axis + 1 :])
        region = _region(corner, self.weights.shape)
        self.sums[region].addcmul_(logits, self.weights)
        if self.totals is not None:
            self.totals[region] += self.weights

    def finish(self) -> Tensor:
        """Return the labels, or the logits, of the volume."""
        self._advance(self.length)
        return self.found

    def _advance(self, count: int) -> None:
        """Make results of the first ``count`` cells along the axis, and have the stretch begin behind them."""
        if count == 0:
            return
        done = self.sums.narrow(1 + self.axis, 0, count)
        if self.totals is None:
            labels = done.max(dim=0).indices  # argmax takes four times as long
            self.found.narrow(self.axis, self.start, count).copy_(labels)
        else:
            mean = done / self.totals.narrow(self.axis, 0, count)
            self.found.narrow(1 + self.axis, self.start, count).copy_(mean)
            _shift(self.totals, self.axis, count)
        _shift(self.sums, 1 + self.axis, count)
        self.start += count


def _shift(x: Tensor, axis: int, count: int) -> None:
    """Drop the first ``count`` cells along an axis, and add as many zeros behind, in place."""
    length = x.shape[axis]
    for first in range(count, length, count):  # pieces that do not overlap where they came from
        n = min(count, length - first)
        x.narrow(axis, first - count, n).copy_(x.narrow(axis, first, n))
    x.narrow(axis, length - count, count).zero_()


def _logits(network: Network, x: Tensor) -> Tensor:
    logits = network(x)
    if not isinstance(logits, Tensor) or logits.ndim != 5 or logits.shape[2:] != x.shape[2:]:
        raise ConfigError(
            "SlidingVolume is for heads that classify the voxels of volumes: leave out model.inference, or choose one "
            "that the head names"
        )
    return logits.float()


def _starts(size: int, window: int, overlap: float) -> list[int]:
    """Return the first cells of windows that cover ``size``; the last one ends with it."""
    return [*range(0, size - window, max(1, int(window * (1 - overlap)))), size - window]


def _region(corner: Sequence[int], window: Sequence[int]) -> tuple[Any, ...]:
    return (..., *(slice(first, first + n) for first, n in zip(corner, window, strict=True)))


def _weights(window: tuple[int, ...], sigma_scale: float) -> Tensor:
    from monai.data.utils import compute_importance_map  # MONAI takes seconds to import

    return compute_importance_map(window, "gaussian", sigma_scale)
