"""Learning rates that shrink towards the input, and weight decay where and as much as the papers have it."""

from collections.abc import Mapping
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import nn

from densevit.errors import ConfigError
from densevit.features import Backbone
from densevit.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS, suggestion

Options = dict[str, Any]
KEYS = ("head_decay", "layer_decay")


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayConstructor:
    """Build the optimizer with few groups of parameters, each with its learning rate and weight decay.

    Group i of the n of ``Backbone.layer_groups()`` learns at ``lr * layer_decay ** (n - i)``, i = 0 being the stem;
    neck and head learn at ``lr`` (BEiT, https://arxiv.org/abs/2106.08254). With ``layer_decay=1`` all do, and what is
    left is the rule of DeiT: vectors (norms, biases) and what ``Backbone.no_weight_decay`` names are not decayed.
    The rest of the head is decayed by ``weight_decay * head_decay``. A large factor, 100 for instance, makes models
    that learn better from few examples (Scaling Vision Transformers, https://arxiv.org/abs/2106.04560).

    Args:
        optim_wrapper_cfg: ``optimizer``, with ``lr``, and arguments of the optimizer wrapper.
        paramwise_cfg: ``layer_decay``, in (0, 1], and ``head_decay``, not negative; 1 if left out.
    """

    def __init__(self, optim_wrapper_cfg: Mapping[str, Any], paramwise_cfg: Mapping[str, Any] | None = None) -> None:
        self.wrapper: Options = {"type": "OptimWrapper", **optim_wrapper_cfg}
        self.optimizer: Options = self.wrapper.pop("optimizer")
        self.check(paramwise_cfg or {})
        self.layer_decay = float((paramwise_cfg or {}).get("layer_decay", 1.0))
        self.head_decay = float((paramwise_cfg or {}).get("head_decay", 1.0))
        for key in ("lr", "weight_decay") if self.head_decay != 1 else ("lr",):
            if key not in self.optimizer:
                raise ConfigError(f"LayerDecayConstructor: optim_wrapper.optimizer needs {key}")

    @staticmethod
    def check(paramwise_cfg: Mapping[str, Any]) -> None:
        """Raise `ConfigError` for a wrong key or value."""
        for key in paramwise_cfg.keys() - set(KEYS):
            near = suggestion(key, KEYS)
            raise ConfigError(f"paramwise_cfg of LayerDecayConstructor takes no {key!r}.{near}")
        if not 0 < paramwise_cfg.get("layer_decay", 1.0) <= 1:
            raise ConfigError(f"layer_decay must be in (0, 1], 0.75 for instance, not {paramwise_cfg['layer_decay']}")
        if not 0 <= paramwise_cfg.get("head_decay", 1.0) < float("inf"):
            raise ConfigError(f"head_decay must not be negative, 100 for instance, not {paramwise_cfg['head_decay']}")

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Return the optimizer wrapper of a model that has a ``backbone``."""
        groups = self._groups(model.module if is_model_wrapper(model) else model)
        optimizer = OPTIMIZERS.build({**self.optimizer, "params": groups})
        return OPTIM_WRAPPERS.build(self.wrapper, {"optimizer": optimizer})

    def _groups(self, model: Any) -> list[Options]:
        """Return one group per pair of learning rate and weight decay, the highest rate first: it is what logs show."""
        scales = self._scales(model)
        exempt = tuple(model.backbone.no_weight_decay)
        members: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                decay = self.head_decay if name.startswith("head.") else 1.0
                if parameter.ndim < 2 or name.endswith(exempt):
                    decay = 0.0
                members.setdefault((scales.get(name, 1.0), decay), []).append(parameter)
        return [
            {
                "params": members[scale, decay],
                "lr": self.optimizer["lr"] * scale,
                **({} if decay == 1 else {"weight_decay": decay * self.optimizer.get("weight_decay", 0.0)}),
            }
            for scale, decay in sorted(members, reverse=True)
        ]

    def _scales(self, model: Any) -> dict[str, float]:
        """Return the factor on the learning rate by name of parameter, of those whose factor is not 1."""
        if self.layer_decay == 1:
            return {}
        backbone: Backbone = model.backbone
        groups, scales = backbone.layer_groups(), {}
        for name, _ in backbone.named_parameters():
            found = [i for i, starts in enumerate(groups) if name.startswith(starts)]
            if len(found) != 1:
                raise ConfigError(
                    f"{type(backbone).__name__}.layer_groups() names {name} {len(found)} times; each parameter must "
                    "be in exactly one group"
                )
            scales[f"backbone.{name}"] = self.layer_decay ** (len(groups) - found[0])
        return scales
