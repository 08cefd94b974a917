"""Samples on the host to batches on the device."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from densevit.layers import pad_stack
from densevit.registry import MODELS
from densevit.structures import Sample


@MODELS.register_module()
class ImagePreprocessor(nn.Module):
    """Normalise on the device; in training pad to a multiple of ``divisor`` and stack.

    Workers send uint8, a quarter of the bytes of float32. In evaluation nothing is padded, so that a prediction
    does not depend on what else is in the batch.

    Args:
        divisor: Per spatial axis. The model passes in its backbone's: no config states it.
        mean: Per channel, for values of 0..255. The default is ImageNet's.
        std: Likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        divisor: Sequence[int],
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
    ) -> None:
        super().__init__()
        self.divisor = tuple(divisor)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, data: Sequence[Sample], training: bool = False) -> dict[str, Any]:
        """Return ``inputs``, one tensor in training and else one per sample, and ``samples`` on the device."""
        inputs: Any = [self._normalise(sample.image) for sample in data]
        if training:
            largest = [max(sizes) for sizes in zip(*(x.shape[1:] for x in inputs), strict=True)]
            inputs = pad_stack(inputs, [-(-n // d) * d for n, d in zip(largest, self.divisor, strict=True)])
        return {"inputs": inputs, "samples": [self._move(sample) for sample in data]}

    def _normalise(self, image: Tensor) -> Tensor:
        x = image.as_subclass(Tensor).to(self.mean.device, non_blocking=True)
        return (x.float() - self.mean) / self.std

    def _move(self, sample: Sample) -> Sample:
        target = sample.target
        if target is not None:
            tensors = {f.name: getattr(target, f.name) for f in fields(target)}
            moved = {k: v.to(self.mean.device) for k, v in tensors.items() if isinstance(v, Tensor)}
            target = replace(target, **moved)
        return replace(sample, target=target)
