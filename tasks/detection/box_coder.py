"""Boxes as offsets from other boxes.

Paper: https://arxiv.org/abs/1311.2524, appendix C
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MAX_LOG = math.log(1000 / 16)  # sides change at most by this factor, either way


def encode(references: Tensor, boxes: Tensor, stds: Sequence[float]) -> Tensor:
    """Return ``(n, 4)``: shift of the centre in sides of the reference, logarithms of the sides' ratios.

    Args:
        references: Anchors or proposals ``(n, 4)``.
        boxes: What they are to become, ``(n, 4)``.
        stds: The four numbers are divided by these, so that they vary about equally.
    """
    centre, side = _centre(references)
    goal_centre, goal_side = _centre(boxes)
    deltas = torch.cat([(goal_centre - centre) / side, (goal_side / side).log()], dim=1)
    return deltas / deltas.new_tensor(stds)


def decode(references: Tensor, deltas: Tensor, stds: Sequence[float]) -> Tensor:
    """Return the boxes ``(..., 4)`` that `encode` turns into ``deltas``."""
    deltas = deltas * deltas.new_tensor(stds)
    centre, side = _centre(references)
    centre = centre + deltas[..., :2] * side
    half = side * deltas[..., 2:].clamp(-MAX_LOG, MAX_LOG).exp() / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def _centre(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
