# sum_head.py
"""A head for semantic segmentation: the levels are summed, and Dice is a part of the loss."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densevit import HEADS, Features, Head
from densevit.features import Losses, Specs
from densevit.structures import Meta, Sample
from densevit.tasks.segmentation import SegPrediction


@HEADS.register_module()
class SumHead(Head):
    """Bring all levels to one width and the finest grid, sum them, classify each cell.

    Args:
        specs: Maps to read, fine to coarse; the model passes them in.
        num_classes: Number of classes.
        channels: Common width of the levels.
        dice_weight: Factor to the Dice loss, which is added to the cross entropy.
        ignore_index: Label of pixels that give no loss.
    """

    def __init__(
        self, specs: Specs, num_classes: int, channels: int = 64, dice_weight: float = 1.0, ignore_index: int = 255
    ) -> None:
        super().__init__()
        self.num_classes, self.dice_weight, self.ignore_index = num_classes, dice_weight, ignore_index
        self.stride = specs[0].stride
        self.levels = nn.ModuleList(nn.Conv2d(spec.channels, channels, 1) for spec in specs)
        self.classify = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, num_classes, 1))

    def forward(self, features: Features) -> Tensor:
        """Return logits on the grid of the finest map, ``(N, K, h, w)``."""
        maps = [level(x) for level, x in zip(self.levels, features.maps, strict=True)]
        size = maps[0].shape[2:]
        return self.classify(torch.stack([F.interpolate(x, size, mode="bilinear") for x in maps]).sum(dim=0))

    def loss(self, outputs: Tensor, samples: Sequence[Sample]) -> Losses:
        """Return what is minimised, each with "loss" in its name, and what is only logged."""
        height, width = (n * s for n, s in zip(outputs.shape[2:], self.stride, strict=True))
        truth = torch.stack([self._truth(sample, height, width) for sample in samples])
        logits = F.interpolate(outputs.float(), (height, width), mode="bilinear")
        labelled = truth != self.ignore_index
        entropy = F.cross_entropy(logits, truth, ignore_index=self.ignore_index, reduction="sum")
        shares = logits.softmax(dim=1) * labelled[:, None]
        wanted = F.one_hot(truth * labelled, self.num_classes).movedim(-1, 1) * labelled[:, None]
        both, all_ = (shares * wanted).sum((0, 2, 3)), (shares + wanted).sum((0, 2, 3))
        right = (logits.argmax(dim=1) == truth).sum()
        return {
            "loss_entropy": entropy / labelled.sum().clamp(min=1),
            "loss_dice": self.dice_weight * (1 - ((2 * both + 1) / (all_ + 1)).mean()),
            "acc": right / labelled.sum().clamp(min=1),
        }

    def predict(self, outputs: Tensor, metas: Sequence[Meta]) -> list[SegPrediction]:
        """Return one mask per sample, at the size of its file."""
        found = []
        for logits, meta in zip(outputs.float(), metas, strict=True):
            logits = F.interpolate(logits[None], meta.original_size, mode="bilinear")
            found.append(SegPrediction(logits[0].argmax(dim=0).to(torch.uint8).cpu()))
        return found

    def export(self, outputs: Tensor, space: Sequence[int]) -> dict[str, Tensor]:
        """Return what an exported model gives: logits on the grid of the head."""
        return {"logits": outputs.float()}

    def _truth(self, sample: Sample, height: int, width: int) -> Tensor:
        """Return a mask as large as the padded batch; what was added is ignored."""
        mask = sample.target.mask.as_subclass(Tensor)
        if tuple(mask.shape) != sample.meta.input_size:  # in validation it is as large as the file
            mask = F.interpolate(mask[None, None].float(), sample.meta.input_size, mode="nearest-exact")[0, 0]
        right, bottom = width - mask.shape[1], height - mask.shape[0]
        return F.pad(mask.long(), (0, right, 0, bottom), value=self.ignore_index)
