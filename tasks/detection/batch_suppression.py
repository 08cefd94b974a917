"""Suppression for a whole batch, by operations that a graph can hold: no loop over images, no size that varies."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import nms


def best_places(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the best ``count`` scores of each row of ``(N, n)``, and where they are; -inf where there are fewer."""
    values, places = F.pad(scores, (0, count), value=-math.inf).topk(count)
    return values, divided(places, scores.shape[1])[1]


def divided(index: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Return quotients and remainders; of a size that varies, a graph in ONNX does not take the operator ``%``."""
    quotient = index // by
    return quotient, index - quotient * by


def suppress(
    boxes: Tensor, scores: Tensor, labels: Tensor, size: Sequence[int], iou: float, limit: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return, of each image, the best boxes that overlap no better one of their label by more than ``iou``.

    Args:
        boxes: ``(N, n, 4)``, within the image.
        scores: ``(N, n)``; -inf where there is no box.
        labels: ``(N, n)``, from 0 on.
        size: ``(h, w)`` of the images.
        iou: Of two boxes.
        limit: Boxes of an image, at most.

    Returns:
        Boxes ``(N, limit, 4)``, scores and labels ``(N, limit)``, the best first; -inf is the score of free places.
    """
    # Two more boxes, far from all: torch.export takes it that at least two remain, whatever is found.
    alone = boxes.new_tensor([[-4.0, -4.0, -3.0, -3.0], [-2.0, -2.0, -1.0, -1.0]])
    flat = F.pad(scores.flatten(), (0, 2), value=-math.inf)
    chosen = F.pad(scores.flatten() > -math.inf, (0, 2), value=1).nonzero()[:, 0]
    apart = torch.cat([_apart(boxes, labels, size).flatten(0, 1), alone])
    kept = chosen[nms(apart[chosen], flat[chosen], iou)]
    remaining = torch.full_like(flat, -math.inf).index_put((kept,), flat[kept])[:-2]
    scores, places = best_places(remaining.view(scores.shape), limit)
    return boxes.gather(1, places[..., None].expand(-1, -1, 4)), scores, labels.gather(1, places)


def _apart(boxes: Tensor, labels: Tensor, size: Sequence[int], row: int = 64) -> Tensor:
    """Move the boxes of each image and label to a place of their own, so that they do not meet in one suppression.

    In a square of places the numbers stay small: in a line, boxes of many classes would lose their fractions.
    """
    height, width = size
    images = torch.arange(boxes.shape[0], device=boxes.device)[:, None]
    x = labels % row * (width + 1)
    y = (images * (labels.max() // row + 1) + labels // row) * (height + 1)
    return boxes + torch.stack([x, y, x, y], dim=-1)
