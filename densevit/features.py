"""The contract between backbones, necks and heads.

A backbone maps an input ``(N, C, *space)`` to `Features`: maps, fine to coarse, and, if asked for,
the token on which the architecture classifies. It describes its maps before any data is seen by one
`FeatureSpec` each, in the same order. A neck turns one such pair into another. A head consumes one.
``space`` is ``(H, W)`` for images, ``(T, H, W)`` for video and ``(D, H, W)`` for volumes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from densevit.errors import ConfigError
from densevit.small_convs import mend_small_convs
from densevit.structures import Meta, Sample


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """A feature map of shape ``(N, channels, *ceil(space / stride))``."""

    channels: int
    stride: tuple[int, ...]

    @property
    def ndim(self) -> int:
        """Number of spatial axes: 2 for images, 3 for video and volumes."""
        return len(self.stride)

    @property
    def level(self) -> int:
        """Pyramid level, as in FPN: the in-plane stride is ``2 ** level``."""
        return self.stride[-1].bit_length() - 1


Maps = tuple[Tensor, ...]
Specs = tuple[FeatureSpec, ...]
Losses = dict[str, Tensor]


class Features(NamedTuple):
    """Maps fine to coarse, and the vector ``(N, C)`` on which the architecture classifies, if it was asked for."""

    maps: Maps
    token: Tensor | None = None


class Backbone(nn.Module, ABC):
    """Input to features. Every parameter gets a gradient when all that is returned is used.

    Attributes:
        specs: One per map that was asked for, fine to coarse.
        token_channels: Channels of the token; 0 if none is returned.
        divisor: Per spatial axis, the multiple to which a training input is padded.
        in_channels: Of the input.
        no_weight_decay: Ends of the names of parameters, beyond norms and biases, that the papers do not decay.
        dense_only: Starts of the names of parameters that only dense maps need, so that classifiers' weights lack them.
        clips_only: Likewise, that only clips need, so that the weights of an image model lack them.
        img_size: Height and width of the images that the official weights were trained on.
        num_frames: Frames of the clips, or depth of the volumes, that they were trained on; 0 if the inputs are images.
        weights_licence: Of the official weights.
        checkpointing: Keep no activations within blocks; compute them again in the backward pass.
    """

    specs: Specs
    token_channels: int = 0
    divisor: tuple[int, ...]
    in_channels: int = 3
    no_weight_decay: tuple[str, ...] = ()
    dense_only: tuple[str, ...] = ()
    img_size: int = 224
    num_frames: int = 0
    clips_only: tuple[str, ...] = ()
    weights_licence: str = "unknown"
    checkpointing: bool = False

    def __init__(self) -> None:
        super().__init__()
        mend_small_convs()

    @abstractmethod
    def forward(self, x: Tensor) -> Features:
        """Return one map per spec, in the order of ``specs``."""

    def run(self, block: nn.Module, *args: Any) -> Any:
        """Return ``block(*args)``, recomputed in the backward pass if ``checkpointing`` is set."""
        if self.checkpointing and torch.is_grad_enabled():
            norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
            if not norms:
                return checkpoint(block, *args, use_reentrant=False)
            contexts = nullcontext(), _statistics_kept(norms)
            return checkpoint(block, *args, use_reentrant=False, context_fn=lambda: contexts)
        return block(*args)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Return starts of the names of parameters by depth: the stem, block after block, what follows them.

        Each parameter is in one group. Layer-wise learning rates need it.

        Raises:
            ConfigError: The backbone does not say.
        """
        raise ConfigError(f"{type(self).__name__} has no layer_groups: add them, or leave out layer_decay")

    def adapt(self, key: str, value: Tensor) -> Tensor:
        """Return a tensor of a state dict, positions of another input size resized to ours."""
        return value

    def from_images(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Complete a state dict of our keys where it is that of the image model that this one extends to clips.

        Other state dicts pass through.
        """
        return state

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename a foreign state dict of this architecture to our keys; keys already ours pass through."""
        return state


class Neck(nn.Module, ABC):
    """Maps to maps. Constructed with the ``specs`` it reads."""

    specs: Specs

    @abstractmethod
    def forward(self, maps: Maps, space: Sequence[int]) -> Maps:
        """Return one map per spec, in the order of ``specs``, for an input of size ``space``."""

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename a foreign state dict of this neck to our keys; keys already ours pass through."""
        return state


class Head(nn.Module, ABC):
    """Features to raw outputs, outputs to losses or predictions.

    Constructed with ``specs`` and, if it takes that argument, ``token_channels``.

    Attributes:
        num_classes: Number of classes it tells apart, without the ignored one.
        reads_input: The first of its maps, and of its ``specs``, is the input of the network itself, at stride 1.
    """

    num_classes: int
    reads_input: bool = False

    @abstractmethod
    def forward(self, features: Features) -> Any:
        """Return raw outputs; their type is private to the head."""

    @abstractmethod
    def loss(self, outputs: Any, samples: Sequence[Sample]) -> Losses:
        """Return named losses; those whose name contains "loss" are summed and minimised."""

    @abstractmethod
    def predict(self, outputs: Any, metas: Sequence[Meta]) -> Sequence[Any]:
        """Return one prediction per sample, at its original size."""

    def export(self, outputs: Any, space: Sequence[int]) -> dict[str, Tensor]:
        """Return what an exported model gives, by name, each with the batch as its first axis.

        A graph is made of it, see `densevit.export`: it must not look at values, nor loop over the batch.

        Args:
            outputs: What ``forward`` returned.
            space: Size of the input.

        Raises:
            ConfigError: The head does not say how.
        """
        raise ConfigError(f"{type(self).__name__} cannot be exported: give it a method export, as Head describes")

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename a foreign state dict of this head to our keys; keys already ours pass through."""
        return state


def expected_shape(spec: FeatureSpec, batch: int, space: Sequence[int]) -> tuple[int, ...]:
    """Return the shape ``spec`` promises for an input of size ``space``."""
    return (batch, spec.channels, *(-(-n // s) for n, s in zip(space, spec.stride, strict=True)))


@contextmanager
def _statistics_kept(norms: Sequence[Any]) -> Iterator[None]:
    """Keep batch norms from counting a batch again while it is computed a second time."""
    settings = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, setting in zip(norms, settings, strict=True):
            norm.momentum, norm.num_batches_tracked = setting


def select_maps(count: int, out_indices: Sequence[int] | None, token: bool) -> tuple[int, ...]:
    """Return the maps that are asked for: by default all ``count``, or none if only the token is wanted."""
    if out_indices is None:
        return () if token else tuple(range(count))
    return tuple(out_indices)


def check_maps(architecture: str, count: int, out_indices: Sequence[int], token: bool) -> None:
    """Raise `ConfigError` for maps that do not exist, and if nothing is asked for."""
    if list(out_indices) != sorted(set(out_indices) & set(range(count))):
        raise ConfigError(
            f"out_indices of {architecture} must be increasing numbers from 0 to {count - 1}, not {tuple(out_indices)}"
        )
    if not out_indices and not token:
        raise ConfigError(f"{architecture} must return something: give out_indices, or token=True to classify")


def check_frozen(architecture: str, built: int, frozen_stages: int) -> None:
    """Raise `ConfigError` unless ``frozen_stages`` of the stages that are built can be frozen."""
    if not 0 <= frozen_stages <= built:
        raise ConfigError(f"frozen_stages of {architecture} is a number of stages, 0 to {built}, not {frozen_stages}")


def check_heads(architecture: str, dims: Sequence[int], num_heads: Sequence[int]) -> None:
    """Raise `ConfigError` unless each width can be split into its number of heads."""
    for dim, heads in zip(dims, num_heads, strict=True):
        if heads < 1 or dim % heads:
            raise ConfigError(
                f"{architecture} cannot split {dim} channels into {heads} heads: num_heads must divide the width"
            )


def check_channels(wanted: str, x: Tensor, in_channels: int) -> None:
    """Raise `ConfigError` unless ``x`` has ``in_channels`` channels; ``wanted`` names it in the message."""
    if x.shape[1] != in_channels:
        raise ConfigError(
            f"expected {wanted}, got {tuple(x.shape)}: the backbone is built for another number of channels. Set "
            "model.backbone.in_channels, or in_channels of create_model, to that of the inputs: "
            f"{x.shape[1]} if channels are their second axis"
        )


def check_images(x: Tensor, in_channels: int, min_size: int = 1) -> None:
    """Raise `ValueError` unless ``x`` is ``(N, in_channels, H, W)`` with sides of at least ``min_size``."""
    if x.ndim != 4:
        raise ValueError(f"expected images (N, {in_channels}, H, W), got {tuple(x.shape)}")
    check_channels(f"images (N, {in_channels}, H, W)", x, in_channels)
    if min(x.shape[2:]) < min_size:
        raise ValueError(f"images must be at least {min_size} pixels high and wide, not {tuple(x.shape[2:])}")


def check_axes(architecture: str, axes: int) -> None:
    """Raise `ConfigError` unless ``axes`` is 2, for images, or 3, for volumes."""
    if axes not in (2, 3):
        raise ConfigError(f"axes of {architecture} is 2, for images, or 3, for volumes, not {axes!r}")


def check_volumes(x: Tensor, in_channels: int, min_size: int = 1) -> None:
    """Raise `ValueError` unless ``x`` is ``(N, in_channels, D, H, W)`` with sides of at least ``min_size``."""
    if x.ndim != 5:
        raise ValueError(f"expected volumes (N, {in_channels}, D, H, W), got {tuple(x.shape)}")
    check_channels(f"volumes (N, {in_channels}, D, H, W)", x, in_channels)
    if min(x.shape[2:]) < min_size:
        raise ValueError(f"volumes must be at least {min_size} voxels along each axis, not {tuple(x.shape[2:])}")


def check_input(x: Tensor, in_channels: int, axes: int, min_size: int = 1) -> None:
    """Raise `ValueError` unless ``x`` is a batch of images, or for three ``axes`` of volumes, as above."""
    (check_images if axes == 2 else check_volumes)(x, in_channels, min_size)


def check_clips(x: Tensor, in_channels: int, min_size: int = 1) -> None:
    """Raise `ValueError` unless ``x`` is ``(N, in_channels, T, H, W)`` with frames, and sides of ``min_size``."""
    if x.ndim != 5:
        raise ValueError(f"expected clips (N, {in_channels}, T, H, W), got {tuple(x.shape)}")
    check_channels(f"clips (N, {in_channels}, T, H, W)", x, in_channels)
    if x.shape[2] < 1:
        raise ValueError(f"a clip must have at least one frame, got {tuple(x.shape)}")
    if min(x.shape[3:]) < min_size:
        raise ValueError(f"frames must be at least {min_size} pixels high and wide, not {tuple(x.shape[3:])}")
