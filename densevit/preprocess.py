"""Samples on the host to batches on the device."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.tv_tensors import Video

from densevit.errors import ConfigError
from densevit.layers import pad_stack
from densevit.registry import MODELS
from densevit.structures import ClassTarget, Sample


@MODELS.register_module()
class ImagePreprocessor(nn.Module):
    """Normalise images or clips on the device; in training pad to a multiple of ``divisor`` and stack.

    Workers send uint8, a quarter of the bytes of float32. In evaluation nothing is padded, so that a prediction
    does not depend on what else is in the batch.

    What has class labels can be mixed in training, by Mixup (https://arxiv.org/abs/1710.09412) or CutMix
    (https://arxiv.org/abs/1905.04899); their labels become probabilities. A batch has one draw, of which of the two
    and of the share. Whom an image is mixed with is drawn too, so that repeats of one image are not mixed together.

    Args:
        divisor: Per spatial axis. The model passes in its backbone's: a config states it only where a recipe wants
            less padding.
        mean: Per channel, for values of 0..255. The default is ImageNet's.
        std: Likewise.
        bgr: Reverse the channels, for weights that were trained so; ``mean`` and ``std`` are then blue first too.
        mixup: Parameter alpha of Mixup; 0 is without it.
        cutmix: Parameter alpha of CutMix; 0 is without it.
        mix_prob: Probability that a batch is mixed.
        switch_prob: Share of CutMix if both are on.
        num_classes: As the head's; needed to mix.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        divisor: Sequence[int],
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        bgr: bool = False,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        mix_prob: float = 1.0,
        switch_prob: float = 0.5,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.divisor = tuple(divisor)
        self.bgr = bgr
        self.mixing = _mixing(mixup, cutmix, mix_prob, switch_prob, num_classes)
        per_channel = (-1, *(1 for _ in self.divisor))
        self.register_buffer("mean", torch.tensor(mean).view(per_channel), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(per_channel), persistent=False)

    def forward(self, data: Sequence[Sample], training: bool = False) -> dict[str, Any]:
        """Return ``inputs``, one tensor in training and else one per sample, and ``samples`` on the device.

        Mixing leaves them in another order than ``data``.

        Raises:
            ConfigError: Something else than images with class labels is to be mixed.
        """
        mixed = training and self.mixing is not None and len(data) > 1
        if mixed:
            data = [data[i] for i in torch.randperm(len(data))]  # mixing pairs neighbours
        images = [_channels_first(sample.image) for sample in data]
        inputs: Any = self._stack(images) if training else [self.normalise(image) for image in images]
        samples = [self._move(sample) for sample in data]
        return self._mix(inputs, samples) if mixed else {"inputs": inputs, "samples": samples}

    def _mix(self, inputs: Tensor, samples: Sequence[Sample]) -> dict[str, Any]:
        assert self.mixing is not None
        for sample in samples:
            if not isinstance(sample.target, ClassTarget):
                raise ConfigError(
                    "data_preprocessor: mixup and cutmix are for images with class labels, "
                    f"not for {type(sample.target).__name__} of {sample.meta.path}: leave them out"
                )
        labels = torch.stack([sample.target.label for sample in samples])
        inputs, labels = self.mixing(Video(inputs) if inputs.ndim == 5 else inputs, labels)
        targets = [replace(s.target, label=label) for s, label in zip(samples, labels, strict=True)]
        inputs = inputs.as_subclass(Tensor)
        return {"inputs": inputs, "samples": [replace(s, target=t) for s, t in zip(samples, targets, strict=True)]}

    def _stack(self, images: list[Tensor]) -> Tensor:
        largest = [max(sizes) for sizes in zip(*(x.shape[1:] for x in images), strict=True)]
        size = [-(-n // d) * d for n, d in zip(largest, self.divisor, strict=True)]
        if all(list(x.shape[1:]) == size for x in images):
            return self.normalise(torch.stack(images))  # in one go
        return pad_stack([self.normalise(x) for x in images], size)

    def normalise(self, images: Tensor) -> Tensor:
        """Return images or clips, channels first, as the network takes them, on the device."""
        x = images.to(self.mean.device, non_blocking=True)
        x = x.flip(-1 - len(self.divisor)) if self.bgr else x
        return (x.float() - self.mean) / self.std

    def _move(self, sample: Sample) -> Sample:
        target = sample.target
        if target is not None:
            tensors = {f.name: getattr(target, f.name) for f in fields(target)}
            moved = {k: v.to(self.mean.device) for k, v in tensors.items() if isinstance(v, Tensor)}
            target = replace(target, **moved)
        return replace(sample, target=target)


def _channels_first(image: Tensor) -> Tensor:
    """Return an image ``(C, H, W)``, or a clip as ``(C, T, H, W)``."""
    x = image.as_subclass(Tensor)
    return x.transpose(0, 1) if isinstance(image, Video) else x


def _mixing(
    mixup: float, cutmix: float, mix_prob: float, switch_prob: float, num_classes: int | None
) -> v2.Transform | None:
    """Return ``(inputs, labels) -> (inputs, labels)``; None if both are off."""
    if min(mixup, cutmix) < 0 or not 0 <= mix_prob <= 1 or not 0 <= switch_prob <= 1:
        raise ConfigError(
            "data_preprocessor: mixup and cutmix must not be negative, mix_prob and switch_prob must be in [0, 1], "
            f"not {mixup}, {cutmix}, {mix_prob}, {switch_prob}"
        )
    kinds = {v2.MixUp: (mixup, 1 - switch_prob), v2.CutMix: (cutmix, switch_prob)}
    kinds = {kind: (alpha, share) for kind, (alpha, share) in kinds.items() if alpha > 0}
    if not kinds:
        return None
    if num_classes is None:
        raise ConfigError("data_preprocessor: mixup and cutmix need num_classes, the same as model.head.num_classes")
    with torch.device("cpu"):  # they draw where they are built
        transforms = [kind(alpha=alpha, num_classes=num_classes) for kind, (alpha, _) in kinds.items()]
    shares = [share for _, share in kinds.values()] if len(kinds) > 1 else None
    return v2.RandomApply([v2.RandomChoice(transforms, shares)], mix_prob)
