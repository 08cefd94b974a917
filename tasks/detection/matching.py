"""Which object, if any, an anchor or proposal has to find."""

import torch
from torch import Tensor
from torchvision.ops import box_iou

BACKGROUND, IGNORED = -1, -2
CHUNK = 16  # objects that are compared at once, which takes nine times the memory of their IoUs


def match(boxes: Tensor, objects: Tensor, positive: float, negative: float, rescue: float | None = None) -> Tensor:
    """Match anchors or proposals to objects by their IoU.

    Args:
        boxes: ``(n, 4)`` anchors or proposals.
        objects: ``(m, 4)`` boxes of the ground truth.
        positive: From this IoU on, a box is matched to the object that it overlaps most.
        negative: Below this IoU with every object, it is background; in between it is ignored.
        rescue: If given, an object is also matched to those boxes that overlap it most, whatever they overlap more,
            where that IoU is at least this (and not 0).

    Returns:
        ``(n,)`` int64: the object, `BACKGROUND` or `IGNORED`.
    """
    if len(objects) == 0 or len(boxes) == 0:
        return boxes.new_full((len(boxes),), BACKGROUND, dtype=torch.int64)
    ious = torch.cat([box_iou(part, boxes) for part in objects.split(CHUNK)])
    best, matched = ious.max(dim=0)
    matched = torch.where(best >= positive, matched, torch.where(best < negative, BACKGROUND, IGNORED))
    if rescue is not None:
        most = ious.max(dim=1, keepdim=True).values
        objects_saved, boxes_saved = ((ious == most) & (most >= rescue) & (most > 0)).nonzero(as_tuple=True)
        # The last of several objects, as in mmdetection.
        matched = matched.scatter_reduce(0, boxes_saved, objects_saved, "amax", include_self=False)
    return matched
