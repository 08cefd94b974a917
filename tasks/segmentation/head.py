"""All-MLP segmentation head of SegFormer.

Paper: https://arxiv.org/abs/2105.15203
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densevit.errors import ConfigError
from densevit.features import Features, Head, Losses, Specs
from densevit.layers import crop, pad_stack, pointwise, resize
from densevit.registry import HEADS
from densevit.structures import Meta, Sample
from densevit.tasks.segmentation.loss import resized_cross_entropy
from densevit.tasks.segmentation.prediction import SegPrediction


class ConvNorm(nn.Module):
    """Parameters of a 1x1 convolution and its batch norm."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)


@HEADS.register_module()
class SegFormerHead(Head):
    """Bring every level to one width and the finest grid, fuse, classify each cell.

    Parameters are named as in the official release. It computes there ``fuse(concat(resize(linear_i(x_i))))``; as both
    layers are linear and resizing acts on each channel alone, that is ``sum_i resize((fuse_i linear_i) x_i)``, which
    needs less than a fifth of the multiplications and never holds the concatenation.

    Args:
        specs: Maps to read, fine to coarse.
        num_classes: Number of classes, ``ignore_index`` not counted.
        channels: Common width of the levels.
        dropout: Rate of channel dropout before the classifier.
        ignore_index: Label of pixels that give no loss.
        class_weights: Weight of each class in the loss; all 1 by default.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        specs: Specs,
        num_classes: int,
        channels: int = 256,
        dropout: float = 0.1,
        ignore_index: int = 255,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if class_weights is not None and len(class_weights) != num_classes:
            raise ConfigError(f"class_weights must have num_classes = {num_classes} numbers, not {len(class_weights)}")
        self.num_classes = num_classes
        self.num_levels = len(specs)
        self.stride = specs[0].stride
        self.ignore_index = ignore_index
        for i, spec in enumerate(specs, start=1):
            self.add_module(f"linear_c{i}", nn.ModuleDict({"proj": nn.Linear(spec.channels, channels)}))
        self.linear_fuse = ConvNorm(channels * len(specs), channels)
        self.dropout = nn.Dropout2d(dropout)
        self.linear_pred = nn.Conv2d(channels, num_classes, 1)
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, features: Features) -> Tensor:
        """Return class logits on the grid of the finest map, ``(N, K, h, w)``."""
        x = self.dropout(F.relu(self._fuse(features.maps), inplace=True))
        return pointwise(x, self.linear_pred.weight.flatten(1), self.linear_pred.bias)

    def _fuse(self, maps: Sequence[Tensor]) -> Tensor:
        bn = self.linear_fuse.bn
        weights, bias = self._products()
        if not bn.training:
            mean, var = bn.running_mean, bn.running_var
            assert isinstance(mean, Tensor)
            assert isinstance(var, Tensor)
            scale = bn.weight * (var + bn.eps).rsqrt()
            weights = [scale[:, None] * w for w in weights]
            bias = (bias - mean) * scale + bn.bias
        x = pointwise(maps[0], weights[0], bias)
        for weight, level in zip(weights[1:], maps[1:], strict=True):
            # In place on what resizing made, which nothing else holds.
            x = resize(pointwise(level, weight), x.shape[2:]).add_(x)
        return bn(x) if bn.training else x

    def _products(self) -> tuple[list[Tensor], Tensor]:
        """Return ``(channels, channels of level i)`` per level and the common bias: both linear layers in one."""
        linears = [getattr(self, f"linear_c{i}")["proj"] for i in range(1, self.num_levels + 1)]
        # The official concatenation runs from coarse to fine.
        fuse = self.linear_fuse.conv.weight[:, :, 0, 0].chunk(self.num_levels, dim=1)[::-1]
        bias = torch.stack([f @ lin.bias for f, lin in zip(fuse, linears, strict=True)]).sum(dim=0)
        return [f @ lin.weight for f, lin in zip(fuse, linears, strict=True)], bias

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

    def _stride(self, outputs: Tensor, meta: Meta) -> tuple[int, ...]:
        """Return the stride of logits: 1 if the inference, test-time augmentation for one, undid that of the head."""
        return (1, 1) if tuple(outputs.shape[2:]) == tuple(meta.input_size) else self.stride

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the layout of transformers; drop the classifier that official checkpoints hold and do not use."""
        translated = {}
        for key, value in state.items():
            level = re.match(r"(?:linear_c|linear_projections)\.(\d)\.(.*)", key)
            if level is not None:
                key = f"linear_c{int(level[1]) + 1}.{level[2]}"
            key = re.sub(r"^linear_fuse\.(?=weight)", "linear_fuse.conv.", key)
            key = re.sub(r"^batch_norm\.", "linear_fuse.bn.", key)
            key = re.sub(r"^classifier\.", "linear_pred.", key)
            if not key.startswith("conv_seg."):
                translated[key] = value
        return translated


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
