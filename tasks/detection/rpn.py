"""Region proposal network: boxes that may hold an object, of whatever class.

Paper: https://arxiv.org/abs/1506.01497
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms

from densevit.errors import ConfigError
from densevit.features import Losses, Maps, Specs
from densevit.tasks.detection.anchors import Anchors, DenseOutputs
from densevit.tasks.detection.batch_candidates import best_of_levels
from densevit.tasks.detection.batch_suppression import best_places, suppress
from densevit.tasks.detection.box_coder import decode, encode
from densevit.tasks.detection.conv_tower import conv_tower
from densevit.tasks.detection.head import clip, has_area, width_of
from densevit.tasks.detection.matching import IGNORED, match
from densevit.tasks.detection.sampling import sample
from densevit.tasks.detection.sparse_conv import conv_at

STDS = (1.0, 1.0, 1.0, 1.0)
NMS_IOU = 0.7
MAX_PROPOSALS = 1000  # of an image
MAX_PER_LEVEL = {True: 2000, False: 1000}  # before suppression, in training and in evaluation


class RPNHead(nn.Module):
    """Objectness and box of every anchor. All levels share it; parameters are named as in mmdetection.

    Args:
        specs: Levels of the neck, fine to coarse.
        channels: Width of the convolutions.
        num_convs: Number of them before the last layers.
        anchor_scales: Sides of square anchors in strides.
        anchor_ratios: Heights over widths of anchors.
        samples: Anchors of an image that give a loss, at most; up to half of them have an object.

    Raises:
        ConfigError: Anchors of no size, or a number below 1.
    """

    def __init__(
        self,
        specs: Specs,
        channels: int = 256,
        num_convs: int = 1,
        anchor_scales: Sequence[float] = (8.0,),
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        samples: int = 256,
    ) -> None:
        super().__init__()
        if num_convs < 1 or samples < 1:
            raise ConfigError(f"rpn_convs and rpn_samples must be at least 1, not {num_convs} and {samples}")
        self.anchors = Anchors(specs, anchor_scales, anchor_ratios)
        self.samples = samples
        tower = conv_tower(width_of(specs), channels, num_convs)
        self.rpn_conv = tower.get_submodule("0.conv") if num_convs == 1 else tower
        self.rpn_cls = nn.Conv2d(channels, self.anchors.per_cell, 1)
        self.rpn_reg = nn.Conv2d(channels, self.anchors.per_cell * 4, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, maps: Maps) -> DenseOutputs:
        """Return the maps of objectness, one class, and of offsets of every level.

        With one convolution they have no gradient.
        """
        dense = not isinstance(self.rpn_conv, nn.Conv2d)  # else the loss computes anew what it samples
        with torch.set_grad_enabled(torch.is_grad_enabled() and dense):
            shared = [F.relu(self.rpn_conv(x)) for x in maps]
            return DenseOutputs([self.rpn_cls(x) for x in shared], [self.rpn_reg(x) for x in shared])

    def loss(self, outputs: DenseOutputs, maps: Maps, objects: Sequence[Tensor]) -> Losses:
        """Return cross entropy of the objectness and distance of the boxes, both per anchor that was sampled.

        Args:
            outputs: What ``forward`` returned.
            maps: For which it did.
            objects: Boxes of the ground truth of each image ``(n, 4)``, in pixels of the network's input.
        """
        levels = self._anchors(outputs)
        chosen, boxes = self._choose(torch.cat(levels), objects), torch.cat(list(objects))
        count = (chosen != IGNORED).sum().clamp(min=1)
        loss_cls, loss_bbox = boxes.new_zeros(()), boxes.new_zeros(())
        split = chosen.split([len(level) for level in levels], dim=1)
        for level, (anchors, found) in enumerate(zip(levels, split, strict=True)):
            image, place = (found != IGNORED).nonzero(as_tuple=True)
            matched = found[image, place]
            inside = matched >= 0
            scores, deltas = self._at(outputs, maps, level, image, place)
            loss_cls = loss_cls + F.binary_cross_entropy_with_logits(scores, inside.to(scores), reduction="sum")
            goal = encode(anchors[place[inside]], boxes[matched[inside]], STDS)
            loss_bbox = loss_bbox + (deltas[inside] - goal).abs().sum()
        return {"loss_rpn_cls": loss_cls / count, "loss_rpn_bbox": loss_bbox / count}

    def _at(self, outputs: DenseOutputs, maps: Maps, level: int, image: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Return objectness ``(n,)`` and offsets ``(n, 4)`` of n anchors of a level, in fp32."""
        if not isinstance(self.rpn_conv, nn.Conv2d):
            rows = [self.anchors.rows(dense[level], image, place).float() for dense in outputs]
            return rows[0][:, 0], rows[1]
        count = self.anchors.per_cell
        x = F.relu(conv_at(self.rpn_conv, maps[level], image, place // count))
        rows = [F.linear(x, conv.weight.flatten(1), conv.bias) for conv in (self.rpn_cls, self.rpn_reg)]
        which = torch.arange(len(x), device=x.device), place % count
        return rows[0][which], rows[1].unflatten(1, (count, 4))[which]

    def _choose(self, anchors: Tensor, objects: Sequence[Tensor]) -> Tensor:
        """Return ``(N, n)``: for anchors that give a loss the object, counted through all images, or `BACKGROUND`."""
        chosen = torch.full((len(objects), len(anchors)), IGNORED, device=anchors.device)
        before = 0
        for row, boxes in zip(chosen, objects, strict=True):
            matched = match(anchors, boxes, positive=0.7, negative=0.3, rescue=0.3)
            picked = sample(matched, self.samples, share=0.5, random=self.training)
            row[picked] = matched[picked] + before * (matched[picked] >= 0)
            before += len(boxes)
        return chosen

    @torch.no_grad()
    def proposals(self, outputs: DenseOutputs, sizes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Return the best boxes ``(n, 4)`` of each image, best first, clipped to the images of ``sizes`` ``(h, w)``."""
        levels = self._anchors(outputs)
        proposals = []
        for image, size in enumerate(sizes):
            boxes, scores = zip(*self._best(outputs, levels, image, size), strict=True)
            level = torch.cat([torch.full_like(x, i) for i, x in enumerate(scores)])
            every = torch.cat(boxes)
            solid = has_area(every)
            every = every[solid]
            kept = batched_nms(every, torch.cat(scores)[solid], level[solid], NMS_IOU)[:MAX_PROPOSALS]
            proposals.append(every[kept])
        return proposals

    def batch_proposals(self, outputs: DenseOutputs, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return `proposals` of the whole batch ``(N, n, 4)``, and which places ``(N, n)`` hold one.

        It goes into a graph, see `Head.export`.
        """
        levels = []
        for boxes, scores, labels in best_of_levels(outputs, self.anchors, 1, MAX_PER_LEVEL[False], size, STDS):
            solid = scores.where(has_area(boxes), -math.inf)
            levels.append(suppress(boxes, solid, labels, size, NMS_IOU, MAX_PER_LEVEL[False])[:2])
        boxes, scores = (torch.cat(parts, dim=1) for parts in zip(*levels, strict=True))
        scores, places = best_places(scores, MAX_PROPOSALS)
        return boxes.gather(1, places[..., None].expand(-1, -1, 4)), scores > -math.inf

    def _best(
        self, outputs: DenseOutputs, levels: Sequence[Tensor], image: int, size: Sequence[int]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield boxes and logits of one image, level by level."""
        for logits, deltas, anchors in zip(*outputs, levels, strict=True):
            flat, cells = logits[image].flatten().float(), logits[image, 0].numel()
            scores, index = flat.topk(min(MAX_PER_LEVEL[self.training], len(flat)))
            place = index % cells * self.anchors.per_cell + index // cells
            rows = self.anchors.rows(deltas, torch.full_like(place, image), place).float()
            yield clip(decode(anchors[place], rows, STDS), size), scores

    def _anchors(self, outputs: DenseOutputs) -> list[Tensor]:
        return self.anchors([x.shape[2:] for x in outputs.logits], outputs.logits[0].device)
