"""Which anchors and proposals of an image give a loss."""

import torch
from torch import Tensor

from densevit.tasks.detection.matching import BACKGROUND


def sample(matched: Tensor, count: int, share: float, random: bool) -> Tensor:
    """Return indices ``(n,)`` of at most ``count`` boxes, those with an object first.

    Args:
        matched: ``(m,)``, what `match` returns.
        count: Number of boxes; fewer where there are not as many.
        share: Part of ``count`` that boxes with an object take at most. Background fills the rest.
        random: Draw the boxes; else they are evenly spaced among those that could be drawn.
    """
    positive = _draw((matched >= 0).nonzero()[:, 0], int(count * share), random)
    negative = _draw((matched == BACKGROUND).nonzero()[:, 0], count - len(positive), random)
    return torch.cat([positive, negative])


def _draw(indices: Tensor, count: int, random: bool) -> Tensor:
    total = len(indices)
    if total <= count:
        return indices
    if random:
        return indices[torch.randperm(total, device=indices.device)[:count]]
    return indices[torch.arange(count, device=indices.device) * total // count]
