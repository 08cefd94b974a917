"""The contract between backbones, necks and heads.

A backbone maps an input ``(N, C, *space)`` to `Features`: maps, fine to coarse, and for
architectures that classify on one a token. It describes its maps before any data is seen by one
`FeatureSpec` each, in the same order. A neck turns one such pair into another. A head consumes one.
``space`` is ``(H, W)`` for images, ``(T, H, W)`` for video and ``(D, H, W)`` for volumes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

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
    """Maps fine to coarse, and ``(N, C)`` of the class token where the architecture has one."""

    maps: Maps
    token: Tensor | None = None


class Backbone(nn.Module, ABC):
    """Input to features. Every parameter gets a gradient when all that is returned is used.

    Attributes:
        specs: One per map that was asked for, fine to coarse.
        divisor: Per spatial axis, the multiple to which a training input is padded.
        no_weight_decay: Ends of the names of parameters, beyond norms and biases, that the papers do not decay.
    """

    specs: Specs
    divisor: tuple[int, ...]
    no_weight_decay: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, x: Tensor) -> Features:
        """Return one map per spec, in the order of ``specs``."""

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename a foreign state dict of this architecture to our keys; keys already ours pass through."""
        return state


class Neck(nn.Module, ABC):
    """Maps to maps. Constructed with the ``specs`` it reads."""

    specs: Specs

    @abstractmethod
    def forward(self, maps: Maps) -> Maps:
        """Return one map per spec, in the order of ``specs``."""


class Head(nn.Module, ABC):
    """Features to raw outputs, outputs to losses or predictions. Constructed with ``specs``.

    Attributes:
        num_classes: Number of classes it tells apart, without the ignored one.
    """

    num_classes: int

    @abstractmethod
    def forward(self, features: Features) -> Any:
        """Return raw outputs; their type is private to the head."""

    @abstractmethod
    def loss(self, outputs: Any, samples: Sequence[Sample]) -> Losses:
        """Return named losses; those whose name contains "loss" are summed and minimised."""

    @abstractmethod
    def predict(self, outputs: Any, metas: Sequence[Meta]) -> Sequence[Any]:
        """Return one prediction per sample, at its original size."""

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename a foreign state dict of this head to our keys; keys already ours pass through."""
        return state


def expected_shape(spec: FeatureSpec, batch: int, space: Sequence[int]) -> tuple[int, ...]:
    """Return the shape ``spec`` promises for an input of size ``space``."""
    return (batch, spec.channels, *(-(-n // s) for n, s in zip(space, spec.stride, strict=True)))
