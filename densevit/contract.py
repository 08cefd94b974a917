"""Whether a backbone keeps the contract of `densevit.features`: what it says of itself, and what it then returns.

Heads and necks are built from what it says, so that a false word would show late, or never.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from densevit.errors import ConfigError
from densevit.features import Backbone, Features, FeatureSpec, check_channels, expected_shape
from densevit.registry import BACKBONES


def build_backbone(config: Mapping[str, Any]) -> Backbone:
    """Build a backbone from its config.

    Raises:
        ConfigError: Settings are wrong, or it is none, or does not describe itself as one must.
    """
    net = BACKBONES.build(config)
    check_backbone(net)
    return net


def check_backbone(net: Any) -> None:
    """Raise `ConfigError` unless ``net`` is a backbone that describes its maps and its input."""
    name = type(net).__name__
    if not isinstance(net, Backbone):
        raise ConfigError(f"{name} is no backbone: derive its class from densevit.Backbone")
    divisor: Any = getattr(net, "divisor", None)
    if not _is_size(divisor) or len(divisor) not in (2, 3):
        raise ConfigError(f"{name}: divisor is one whole number per axis, such as (32, 32), not {divisor!r}")
    for attribute, least in (("in_channels", 1), ("token_channels", 0)):
        number: Any = getattr(net, attribute)
        if not _is_whole(number, least):
            raise ConfigError(f"{name}: {attribute} is a whole number of at least {least}, not {number!r}")
    specs: Any = getattr(net, "specs", None)
    if not isinstance(specs, tuple | list) or not all(isinstance(spec, FeatureSpec) for spec in specs):
        raise ConfigError(
            f"{name}: specs is a tuple with a FeatureSpec for each map, such as (FeatureSpec(64, (4, 4)),), "
            f"not {specs!r}"
        )
    for i, spec in enumerate(specs):
        _check_spec(f"{name}: specs[{i}]", spec, len(divisor))


def _check_spec(where: str, spec: FeatureSpec, axes: int) -> None:
    if not _is_whole(spec.channels, 1):
        raise ConfigError(f"{where}: channels is a positive whole number, not {spec.channels!r}")
    # No list: strides are compared as members of sets.
    if not isinstance(spec.stride, tuple) or not _is_size(spec.stride) or len(spec.stride) != axes:
        example = ", ".join(["16"] * axes)
        raise ConfigError(
            f"{where}: stride is a tuple of one whole number per axis, as many as divisor has, such as ({example}), "
            f"not {spec.stride!r}"
        )


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_size(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(_is_whole(n, 1) for n in value)


def is_traced() -> bool:
    """Say whether a graph is made of what runs: what is compared here must not become part of it."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def checked_features(backbone: Backbone, x: Tensor) -> Features:
    """Return ``backbone(x)``, and see that it is what the backbone says.

    Shapes alone are looked at, so that nothing waits for the device.

    Raises:
        ConfigError: ``x`` has other axes or channels than the backbone is for, or it returns what it does not say.
    """
    try:
        features = backbone(x)
    except RuntimeError:
        if x.ndim == len(backbone.divisor) + 2:  # layers do not say how the number is set
            check_channels("inputs (N, C, ...)", x, backbone.in_channels)
        raise
    check_features(backbone, x, features)
    return features


def check_features(backbone: Backbone, x: Tensor, features: Any) -> None:
    """Raise `ConfigError` unless ``features`` is what ``backbone`` promises for the input ``x``."""
    name = type(backbone).__name__
    axes = len(backbone.divisor)
    if x.ndim != axes + 2:
        raise ConfigError(
            f"{name} is for inputs of {axes} axes beside batch and channels, as its divisor says, not for one of shape "
            f"{tuple(x.shape)}"
        )
    if x.shape[1] != backbone.in_channels:
        raise ConfigError(
            f"{name}: in_channels is {backbone.in_channels}, but it takes inputs of {x.shape[1]} channels: set "
            "self.in_channels to what its first layer was built for"
        )
    if not isinstance(features, Features):
        raise ConfigError(f"{name}: forward returns Features, with one map per spec, not {_kind(features)}")
    if not isinstance(features.maps, tuple | list) or not all(isinstance(m, Tensor) for m in features.maps):
        raise ConfigError(f"{name}: maps of Features is a tuple of tensors, not {_kind(features.maps)}")
    if len(features.maps) != len(backbone.specs):
        raise ConfigError(
            f"{name}: forward returns {len(features.maps)} maps, but specs has {len(backbone.specs)}: mend specs or "
            "forward"
        )
    for i, (found, spec) in enumerate(zip(features.maps, backbone.specs, strict=True)):
        expected = expected_shape(spec, len(x), x.shape[2:])
        if tuple(found.shape) != expected:
            raise ConfigError(
                f"{name}: map {i} is {tuple(found.shape)} for an input of {' x '.join(map(str, x.shape[2:]))}, but "
                f"specs[{i}] says {spec.channels} channels at stride {spec.stride}, so {expected}: mend specs or "
                "forward"
            )
    _check_token(name, features.token, len(x), backbone.token_channels)


def _check_token(name: str, token: Any, batch: int, channels: int) -> None:
    shape = tuple(token.shape) if isinstance(token, Tensor) else None
    if channels and shape != (batch, channels):
        raise ConfigError(
            f"{name}: the token is {_kind(token) if shape is None else shape}, but token_channels says "
            f"{(batch, channels)}: mend token_channels or forward"
        )
    if not channels and token is not None:
        raise ConfigError(f"{name}: forward returns a token, but token_channels is 0: set it to the token's channels")


def _kind(value: object) -> str:
    """Return what a value is, in a few words: a tensor would fill the screen."""
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {', '.join(sorted({type(v).__name__ for v in value})) or 'nothing'}"
    return "None" if value is None else f"a {type(value).__name__}"
