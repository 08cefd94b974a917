"""What a dense head finds in a whole batch, by operations that a graph can hold."""

from collections.abc import Iterator, Sequence

import torch

from densevit.tasks.detection.anchors import Anchors, DenseOutputs
from densevit.tasks.detection.batch_suppression import best_places, divided
from densevit.tasks.detection.box_coder import decode
from densevit.tasks.detection.head import Instances, clip


def best_of_levels(
    outputs: DenseOutputs, anchors: Anchors, num_classes: int, count: int, size: Sequence[int], stds: Sequence[float]
) -> Iterator[Instances]:
    """Yield the best ``count`` pairs of an anchor and a class, level by level: ``(N, count, 4)`` and ``(N, count)``.

    Scores are logits, and -inf where a level has fewer.
    """
    sizes = [x.shape[2:] for x in outputs.logits]
    for logits, deltas, level in zip(*outputs, anchors(sizes, outputs.logits[0].device), strict=True):
        cells = logits.shape[2] * logits.shape[3]
        scores, index = best_places(logits.flatten(1).float(), count)
        channel, cell = divided(index, cells)
        place = cell * anchors.per_cell + channel // num_classes
        image = torch.arange(logits.shape[0], device=logits.device)[:, None].expand_as(place)
        rows = anchors.rows(deltas, image, place).float()
        yield Instances(clip(decode(level[place], rows, stds), size), scores, channel % num_classes)
