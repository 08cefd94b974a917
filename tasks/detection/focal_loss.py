"""Focal loss, for dense predictions of which nearly all are background.

Paper: https://arxiv.org/abs/1708.02002
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def focal_loss(logits: Tensor, truth: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Return the loss of each logit, of the shape of both, where ``truth`` is 1 or 0."""
    return torch.where(truth > 0, alpha * _focused(-logits, gamma), (1 - alpha) * _focused(logits, gamma))


def background_focal_loss(logits: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Return the sum of the losses of logits ``(...)`` whose truth is 0 everywhere.

    What is background is most of a map: this needs no truth, no other order of the map, and a single temporary.
    """
    return (1 - alpha) * _SumFocused.apply(logits, gamma)


def _focused(x: Tensor, gamma: float) -> Tensor:
    """Return cross entropy against 0, weighted by the power of how wrong it is."""
    return x.sigmoid() ** gamma * F.softplus(x)


class _SumFocused(torch.autograd.Function):
    """``_focused(x).sum()``, whose gradient is computed along with it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: float) -> Tensor:
        p, loss = x.sigmoid(), F.softplus(x)
        power = p**gamma
        ctx.save_for_backward(power * (gamma * (1 - p) * loss + p))
        return (power * loss).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return slope * grads[0], None
