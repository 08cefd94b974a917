"""Stochastic depth.

Paper: https://arxiv.org/abs/1603.09382
"""

from collections.abc import Sequence

from torch import Tensor, nn


class DropPath(nn.Module):
    """Drop a residual branch per sample with probability ``p``; zero ``p`` does nothing."""

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0.0 or not self.training:
            return x
        keep = 1.0 - self.p
        scale = x.new_empty(x.shape[0], *(1,) * (x.ndim - 1)).bernoulli_(keep).div_(keep)
        return x * scale

    def extra_repr(self) -> str:
        return f"p={self.p:g}"


def drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Return rates per stage and block that grow linearly from 0 at the first block to ``rate`` at the last."""
    step = rate / max(sum(depths) - 1, 1)
    starts = [sum(depths[:i]) for i in range(len(depths))]
    return [[step * (start + i) for i in range(depth)] for start, depth in zip(starts, depths, strict=True)]
