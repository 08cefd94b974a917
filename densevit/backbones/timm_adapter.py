"""Backbones of timm (https://github.com/huggingface/pytorch-image-models), which is optional."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from densevit.errors import ConfigError, InstallationError
from densevit.features import Backbone, Features, FeatureSpec, check_frozen, check_images, check_maps
from densevit.layers import ceil_div, crop, freeze, pad_to_multiple
from densevit.registry import BACKBONES

# What lets models of timm see images of any size, under the names that one family or another has for it.
ANY_SIZE = {"dynamic_img_size": True, "strict_img_size": False, "dynamic_mask": True}
FINEST = 4  # stride of the finest map returned unless asked for


@BACKBONES.register_module(name="timm")
class TimmBackbone(Backbone):
    """Any model of timm that can return its intermediate maps, with random weights: load a file for others.

    Sides that are no multiple of ``divisor`` are padded by zeros at the end, as they are in training, and maps are
    cropped. Parameters are named as in timm's own model, after "model.".

    Args:
        name: Name in timm, such as "resnet50".
        in_channels: Channels of the images.
        drop_path: Rate of stochastic depth, for models that have it.
        out_indices: Maps to return, among those of timm's model. By default those of stride 4 and more, the last four
            at most; none with ``token``.
        token: Return the vector that timm's classifier reads.
        frozen_stages: Number of first stages that are not trained, and the stem with them.
        img_size: Size of the images, for models that must know it.
        divisor: Multiple to which sides are padded; the largest stride by default. Models that cut the image into
            windows of a fixed number of cells want more.
        options: Further arguments of timm's model.

    Raises:
        InstallationError: timm is not installed.
        ConfigError: Unknown name, or settings that this model does not have.
    """

    def __init__(
        self,
        name: str,
        in_channels: int = 3,
        drop_path: float = 0.0,
        out_indices: Sequence[int] | None = None,
        token: bool = False,
        frozen_stages: int = 0,
        img_size: int | Sequence[int] | None = None,
        divisor: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.in_channels = in_channels
        self._checkpointing = False
        required = {"in_chans": in_channels, **(options or {})}
        if drop_path:
            required["drop_path_rate"] = drop_path
        if img_size is not None:
            required["img_size"] = img_size
        self.model: Any = _create(name, required)
        levels = list(getattr(self.model, "feature_info", ()))
        if not levels or not hasattr(self.model, "forward_intermediates"):
            raise ConfigError(f"timm's {name} does not return intermediate maps (features_only): choose another model")
        strides = [int(level["reduction"]) for level in levels]
        if out_indices is None:
            out_indices = () if token else [i for i, stride in enumerate(strides) if stride >= FINEST][-4:]
        check_maps(f"timm's {name}", len(levels), out_indices, token)
        self.out_indices = tuple(out_indices)
        self.specs = tuple(FeatureSpec(int(levels[i]["num_chs"]), (strides[i], strides[i])) for i in out_indices)
        self.divisor = (divisor or max(strides),) * 2
        if token:
            self.model.reset_classifier(0)
            self.token_channels = int(self.model.head_hidden_size)
        else:
            self.out_indices = tuple(self.model.prune_intermediate_layers(list(out_indices), True, True))
        if frozen_stages:
            self._freeze(frozen_stages)

    def forward(self, x: Tensor) -> Features:
        check_images(x, self.in_channels)
        space = x.shape[2:]
        x = pad_to_multiple(x, self.divisor[0])
        maps: Sequence[Tensor] = ()
        if not self.out_indices:
            x = self.model.forward_features(x)
        elif self.token_channels:
            x, maps = self.model.forward_intermediates(x, indices=self.out_indices, output_fmt="NCHW")
        else:
            maps = self.model.forward_intermediates(
                x, indices=self.out_indices, output_fmt="NCHW", intermediates_only=True
            )
        cells = [[ceil_div(n, spec.stride[0]) for n in space] for spec in self.specs]
        return Features(
            tuple(crop(m, size) for m, size in zip(maps, cells, strict=True)),
            self.model.forward_head(x, pre_logits=True) if self.token_channels else None,
        )

    @property
    def checkpointing(self) -> bool:
        """Whether timm's model computes activations again in the backward pass."""
        return self._checkpointing

    @checkpointing.setter
    def checkpointing(self, enable: bool) -> None:
        if enable != self._checkpointing:
            if not hasattr(self.model, "set_grad_checkpointing"):
                raise ConfigError(f"timm's {self.name} keeps all activations: leave out activation_checkpointing")
            self.model.set_grad_checkpointing(enable)
            self._checkpointing = enable

    def layer_groups(self) -> list[tuple[str, ...]]:
        return self._groups(coarse=False) or [("",)]

    def _groups(self, coarse: bool) -> list[tuple[str, ...]]:
        """Return names of parameters by depth, or by stage, as timm groups them; nothing if it does not."""
        if not hasattr(self.model, "group_matcher"):
            return []
        from timm.models import group_parameters

        groups = group_parameters(self.model, self.model.group_matcher(coarse=coarse))
        return [tuple(f"model.{name}" for name in groups[i]) for i in sorted(groups)]

    def _freeze(self, stages: int) -> None:
        groups = self._groups(coarse=True)
        if not groups:
            raise ConfigError(f"timm does not say what the stages of {self.name} are: leave out frozen_stages")
        check_frozen(f"timm's {self.name}", len(groups) - 1, stages)
        frozen = {name for group in groups[: stages + 1] for name in group}
        for prefix, module in self.named_modules():
            own = {f"{prefix}.{name}" for name, _ in module.named_parameters()}
            if own and own <= frozen:
                freeze(module)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name not in frozen)

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Put "model." before names of timm's files, and "head." with them."""
        return {key if key.startswith("model.") else f"model.{key}": value for key, value in state.items()}


def _create(name: str, required: dict[str, Any]) -> Any:
    """Build timm's model with all of ``required``, and with as much of `ANY_SIZE` as it knows."""
    try:
        import timm
    except ImportError as error:
        raise InstallationError(f'backbones of type "timm" need timm ({error}): pip install "timm>=1.0.16"') from error
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "timm.list_models() returns all names."
        raise ConfigError(f"{name!r} is not a model of timm {timm.__version__}. {hint}")
    wanted = {**ANY_SIZE, **required}
    while True:
        try:
            return timm.create_model(name, pretrained=False, **wanted)
        except TypeError as error:  # raised before anything is built
            refused = [key for key in wanted if f"'{key}'" in str(error)]
            if not refused:
                raise
            for key in refused:
                if key in required:
                    raise ConfigError(f"timm's {name} takes no {key}: leave it out") from error
                del wanted[key]
