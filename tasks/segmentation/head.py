"""What heads for semantic segmentation share: losses and predictions at full resolution from logits on a grid."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from densevit.errors import ConfigError
from densevit.features import Head, Losses
from densevit.layers import crop, pad_stack, resize
from densevit.structures import Meta, Sample
from densevit.tasks.segmentation.loss import resized_cross_entropy
from densevit.tasks.segmentation.prediction import SegPrediction


class SegmentationHead(Head):
    """Loss and prediction from class logits ``(N, K, h, w)``, which is what ``forward`` of a subclass returns.

    Args:
        stride: Of the grid of the logits.
        num_classes: Number of classes, ``ignore_index`` not counted.
        ignore_index: Label of pixels that give no loss.
        class_weights: Weight of each class in the loss; all 1 by default.

    Raises:
        ConfigError: Not one weight per class.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        stride: tuple[int, ...],
        num_classes: int,
        ignore_index: int = 255,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if class_weights is not None and len(class_weights) != num_classes:
            raise ConfigError(f"class_weights must have num_classes = {num_classes} numbers, not {len(class_weights)}")
        self.stride = stride
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def loss(self, outputs: Tensor, samples: Sequence[Sample]) -> Losses:
        """Return cross entropy per labelled pixel, and the share of those pixels that are right.

        Masks may be smaller than the padded input; beyond them nothing counts. In evaluation, where they have the
        size of the file, they are resized to that of the input.
        """
        stride = self._stride(outputs, samples[0].meta)
        size = [n * s for n, s in zip(outputs.shape[2:], stride, strict=True)]
        target = pad_stack([_mask_of_input(s) for s in samples], size, self.ignore_index).to(outputs.device)
        loss, accuracy = resized_cross_entropy(outputs, target, self.ignore_index, self.class_weights)
        return {"loss_seg": loss, "acc_seg": accuracy}

    def predict(self, outputs: Tensor, metas: Sequence[Meta]) -> list[SegPrediction]:
        """Return one mask per sample at its original size."""
        predictions = []
        for logits, meta in zip(outputs, metas, strict=True):
            stride = self._stride(outputs, meta)
            valid = crop(logits, [-(-n // s) for n, s in zip(meta.input_size, stride, strict=True)])
            predictions.append(SegPrediction(argmax_resized(valid, meta.original_size)))
        return predictions

    def export(self, outputs: Tensor, space: Sequence[int]) -> dict[str, Tensor]:
        """Return logits ``(N, K, h, w)`` on the grid of the head.

        At the size of the input, of which the picture may have another, they would take 16 times the memory.
        """
        return {"logits": outputs.float()}

    def _stride(self, outputs: Tensor, meta: Meta) -> tuple[int, ...]:
        """Return the stride of logits: 1 if the inference, test-time augmentation for one, undid that of the head."""
        return (1, 1) if tuple(outputs.shape[2:]) == tuple(meta.input_size) else self.stride


def _mask_of_input(sample: Sample) -> Tensor:
    mask = sample.target.mask.as_subclass(Tensor)
    if tuple(mask.shape) != sample.meta.input_size:
        mask = F.interpolate(mask[None, None].float(), sample.meta.input_size, mode="nearest-exact")[0, 0]
    return mask.long()


def argmax_resized(logits: Tensor, size: Sequence[int], chunk: int = 16) -> Tensor:
    """Return ``resize(logits, size).argmax(dim=0)`` of ``(K, h, w)`` on the CPU, ``chunk`` classes at a time."""
    num_classes = logits.shape[0]
    # Neighbours in space are neighbours in memory: interpolation and maximum are then fastest.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).contiguous()
    best = logits.new_full(tuple(size), float("-inf"))
    label = torch.zeros(tuple(size), dtype=torch.uint8 if num_classes <= 255 else torch.int16, device=logits.device)
    for start in range(0, num_classes, chunk):
        value, index = resize(logits[None, start : start + chunk], size)[0].max(dim=0)
        better = value > best
        best = torch.where(better, value, best)
        label = torch.where(better, (index + start).to(label.dtype), label)
    return label.cpu()
