"""The convolutional decoder of UNETR, on the maps of any backbone.

Paper: https://arxiv.org/abs/2103.10504, section 3
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from densevit.errors import ConfigError
from densevit.features import Features, Head, Losses, Specs
from densevit.layers import ceil_div, crop, pad_stack
from densevit.registry import HEADS
from densevit.structures import Meta, Sample
from densevit.tasks.medical.grid import resample_labels, scaling
from densevit.tasks.medical.levels import level_strides, ratio
from densevit.tasks.medical.loss import dice_and_cross_entropy
from densevit.tasks.medical.prediction import VolumePrediction


@HEADS.register_module()
class UNETRHead(Head):
    """Maps, raised and merged level by level up to the resolution of the input, which is read too.

    With the backbone of UNETR it is MONAI's decoder, weights and all. With others it has the levels that
    `level_strides` finds: those finer than any map are convolved from the input, as in a U-Net. Level l has
    ``feature_size * 2 ** (l - 1)`` channels. Outputs are logits ``(N, K, D, H, W)``; `SlidingVolume` makes them labels
    ``(N, D, H, W)``.

    Args:
        specs: Of the input and the maps.
        num_classes: Number of classes, the background, class 0, among them.
        feature_size: Channels at the resolution of the input.
        norm: MONAI's name of the normalisation, or that and its arguments.
        res_block: Blocks of two convolutions have a shortcut.
        conv_block: Maps that are raised by several steps pass such a block after each but the first.

    Raises:
        ConfigError: Levels cannot be made of these maps.
    """

    reads_input = True
    sliding = "SlidingVolume"

    def __init__(
        self,
        specs: Specs,
        num_classes: int,
        feature_size: int = 16,
        norm: str | tuple[str, dict[str, Any]] = "instance",
        res_block: bool = True,
        conv_block: bool = True,
    ) -> None:
        from densevit.tasks.medical.unetr_blocks import UNETRBlocks

        super().__init__()
        image, *maps = specs
        self.num_classes = num_classes
        self.strides = level_strides([spec.stride for spec in maps])
        self.convolved = len(self.strides) - len(maps)  # levels finer than any map
        channels = [feature_size * 2**i for i in range(len(self.strides) - 1)]
        blocks = UNETRBlocks(image.ndim, norm, res_block, conv_block)
        inputs, finer = image.channels, self.strides[0]
        for level, stride in enumerate(self.strides[: self.convolved]):
            block = blocks.convolve(inputs, channels[level], ratio(stride, finer))
            self.add_module(f"encoder{level + 1}", block)
            inputs, finer = channels[level], stride
        for level, spec in enumerate(maps[:-1], start=self.convolved):
            factor = ratio(spec.stride, self.strides[level])
            build = blocks.raise_ if max(factor) > 1 else blocks.convolve
            self.add_module(f"encoder{level + 1}", build(spec.channels, channels[level], factor))
        widths = [*channels, maps[-1].channels]
        for level in range(len(channels), 0, -1):
            factor = ratio(self.strides[level], self.strides[level - 1])
            self.add_module(f"decoder{level + 1}", blocks.merge(widths[level], widths[level - 1], factor))
        self.out = blocks.classify(feature_size, num_classes)

    def forward(self, features: Features) -> Tensor:
        """Return logits ``(N, K, *space)``.

        Raises:
            ValueError: The input is so small that a level that is normalised has a single cell.
        """
        image, *maps = features.maps
        space = tuple(image.shape[2:])
        if all(n <= s for n, s in zip(space, self.strides[-2], strict=True)):
            raise ValueError(f"UNETRHead: an input must be larger than {self.strides[-2]} along an axis, not {space}")
        skips = [image]
        for level in range(self.convolved):
            skips.append(self.get_submodule(f"encoder{level + 1}")(skips[-1]))
        for level, x in enumerate(maps[:-1], start=self.convolved):
            cells = [ceil_div(n, s) for n, s in zip(space, self.strides[level], strict=True)]
            skips.append(crop(self.get_submodule(f"encoder{level + 1}")(x), cells))
        x = maps[-1]
        for level in range(len(self.strides) - 1, 0, -1):
            x = self.get_submodule(f"decoder{level + 1}")(x, skips[level])
        return self.out(x)

    def loss(self, outputs: Tensor, samples: Sequence[Sample]) -> Losses:
        """Return Dice loss and cross entropy; beyond its mask, an input is background.

        Raises:
            ConfigError: The outputs are labels, or the truth is not on the grid of the input: those of evaluation.
        """
        if outputs.ndim == 4 or any(sample.meta.to_input is not None for sample in samples):
            raise ConfigError(
                "there is no loss in the evaluation of volumes, where the truth is on the grid of the file: "
                "set val_cfg = dict(loss=False)"
            )
        target = pad_stack([sample.target.mask for sample in samples], outputs.shape[2:]).to(outputs.device)
        dice, cross_entropy = dice_and_cross_entropy(outputs, target)
        return {"loss_dice": dice, "loss_ce": cross_entropy}

    def predict(self, outputs: Tensor, metas: Sequence[Meta]) -> list[VolumePrediction]:
        """Return the classes of the voxels of each file, from logits or labels on the grid of its input."""
        return [VolumePrediction(self._on_file(x, meta), meta.path) for x, meta in zip(outputs, metas, strict=True)]

    def export(self, outputs: Tensor, space: Sequence[int]) -> dict[str, Tensor]:
        """Return logits ``(N, K, D, H, W)`` of windows."""
        return {"logits": outputs.float()}

    def _on_file(self, output: Tensor, meta: Meta) -> Tensor:
        labels = crop(output, meta.input_size)
        if labels.ndim == 4:
            labels = labels.max(dim=0).indices.to(torch.uint8 if len(labels) <= 256 else torch.int16)
        to_input = scaling(meta.original_size, meta.input_size) if meta.to_input is None else meta.to_input
        return resample_labels(labels, to_input, meta.original_size).cpu()
