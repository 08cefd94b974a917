"""Learning rates by depth, and what is not decayed."""

from typing import Any

import pytest
import torch
from mmengine.config import Config
from torch import nn

from densevit.engine.config import check_config
from densevit.engine.layer_decay import LayerDecayConstructor
from densevit.errors import ConfigError


class Chain(nn.Module):
    """A backbone of three groups, one vector or table that is not decayed, and one frozen parameter."""

    no_weight_decay = ("table",)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(2, 2)
        self.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(11))
        self.norm = nn.LayerNorm(2)
        self.table = nn.Parameter(torch.zeros(2, 2))
        self.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)

    def layer_groups(self) -> list[tuple[str, ...]]:
        blocks = [(f"blocks.{i}.",) for i in range(len(self.blocks))]
        return [("stem.", "table", "frozen"), *blocks, ("norm.",)]


class Model(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(2, 3)


def settings(model: nn.Module, **options: float) -> dict[str, tuple[float, float]]:
    """Return (learning rate, weight decay) by name of parameter; each must be in one group of the optimizer."""
    cfg = {"optimizer": {"type": "AdamW", "lr": 0.1, "weight_decay": 0.5}}
    wrapper = LayerDecayConstructor(cfg, options)(model)
    names = {id(p): name for name, p in model.named_parameters()}
    found = [(names[id(p)], g) for g in wrapper.optimizer.param_groups for p in g["params"]]
    assert len({name for name, _ in found}) == len(found)
    return {name: (g["lr"], g["weight_decay"]) for name, g in found}


def test_the_rate_falls_by_the_same_factor_from_group_to_group_towards_the_input() -> None:
    found = settings(Model(Chain()), layer_decay=0.5)
    assert found["head.weight"][0] == 0.1
    assert found["backbone.norm.weight"][0] == pytest.approx(0.1 * 0.5)
    assert found["backbone.blocks.10.weight"][0] == pytest.approx(0.1 * 0.5**2)
    assert found["backbone.blocks.1.weight"][0] == pytest.approx(0.1 * 0.5**11)
    assert found["backbone.stem.weight"][0] == found["backbone.table"][0] == pytest.approx(0.1 * 0.5**13)


@pytest.mark.parametrize("layer_decay", [1.0, 0.9])
def test_vectors_and_what_the_backbone_names_are_not_decayed(layer_decay: float) -> None:
    model = Model(Chain())
    found = settings(model, layer_decay=layer_decay)
    assert found.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    free = {name for name, (_, decay) in found.items() if decay == 0}
    assert free == {name for name in found if name.endswith(("bias", "norm.weight", "table"))}
    assert {decay for _, decay in found.values()} == {0.0, 0.5}


def test_equal_settings_share_a_group_and_the_full_rate_comes_first() -> None:
    cfg: dict[str, Any] = {"optimizer": {"type": "AdamW", "lr": 0.1, "weight_decay": 0.5}}
    assert len(LayerDecayConstructor(cfg)(Model(Chain())).optimizer.param_groups) == 2
    groups = LayerDecayConstructor(cfg, {"layer_decay": 0.9})(Model(Chain())).optimizer.param_groups
    assert len(groups) == 2 * 14 - 1  # the last, of norms, has vectors only
    rates = [group["lr"] for group in groups]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 0.1


@pytest.mark.parametrize("layer_decay", [1.0, 0.9])
def test_matrices_of_the_head_are_decayed_by_a_factor_of_their_own(layer_decay: float) -> None:
    model = Model(Chain())
    plain, found = settings(model, layer_decay=layer_decay), settings(model, layer_decay=layer_decay, head_decay=100)
    assert found.pop("head.weight") == (0.1, 50.0)
    assert found["head.bias"] == (0.1, 0.0)
    assert found == {name: plain[name] for name in found}
    assert settings(model, head_decay=0)["head.weight"] == (0.1, 0.0)


def test_the_decay_of_the_head_needs_one_to_multiply() -> None:
    with pytest.raises(ConfigError, match="needs weight_decay"):
        LayerDecayConstructor({"optimizer": {"type": "AdamW", "lr": 0.1}}, {"head_decay": 100})


class Groupless(Chain):
    def layer_groups(self) -> list[tuple[str, ...]]:
        return super().layer_groups()[1:]


def test_a_parameter_outside_of_all_groups_is_named() -> None:
    with pytest.raises(ConfigError, match=r"Groupless\.layer_groups\(\) names table 0 times"):
        settings(Model(Groupless()), layer_decay=0.9)


def test_a_real_backbone_learns_slower_in_front(config: Config) -> None:
    from densevit.registry import MODELS

    found = settings(MODELS.build(config.model), layer_decay=0.75)
    backbone = [rate for name, (rate, _) in found.items() if name.startswith("backbone.")]
    assert max(backbone) < 0.1
    assert {rate for name, (rate, _) in found.items() if name.startswith("head.")} == {0.1}
    assert len(set(backbone)) > 4


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        ({"constructor": "LayerDecayConstructer"}, "Did you mean 'LayerDecayConstructor'"),
        ({"constructor": "LayerDecayConstructor", "paramwise_cfg": {"layer_deacy": 0.9}}, "Did you mean 'layer_decay'"),
        ({"constructor": "LayerDecayConstructor", "paramwise_cfg": {"layer_decay": 1.5}}, r"in \(0, 1\]"),
        ({"constructor": "LayerDecayConstructor", "paramwise_cfg": {"head_deacy": 100}}, "Did you mean 'head_decay'"),
        ({"constructor": "LayerDecayConstructor", "paramwise_cfg": {"head_decay": -1}}, "head_decay must not be neg"),
        ({"paramwise_cfg": {"norm_decay_mul": 0.0}}, "Did you mean 'norm_decay_mult'"),
    ],
)
def test_a_misspelt_option_is_refused_before_the_run(config: Config, wrapper: dict[str, Any], message: str) -> None:
    config.optim_wrapper.update(wrapper)
    with pytest.raises(ConfigError, match=message):
        check_config(config)
