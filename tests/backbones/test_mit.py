"""MiT: sizes of the variants, initialisation, settings, and other libraries' weights."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from densevit.backbones import MiT
from densevit.errors import ConfigError
from densevit.registry import BACKBONES

# Parameters, and multiply-adds in G for an image of 224 x 224, of the official models.
SIZES = {
    "mit_b0": (3_319_392, 0.4522),
    "mit_b1": (13_151_424, 1.6751),
    "mit_b2": (24_196_288, 3.2708),
    "mit_b3": (44_072_128, 6.1413),
    "mit_b4": (60_842_688, 8.9197),
    "mit_b5": (81_443_008, 11.7167),
}
# Standard deviations right after official construction.
INIT = {
    "patch_embed1.proj.weight": 0.036081,
    "patch_embed4.proj.weight": 0.029473,
    "block1.0.attn.sr.weight": 0.031351,
    "block3.0.attn.kv.weight": 0.02,
    "block4.1.mlp.fc1.weight": 0.02,
}


def tiny(**options: Any) -> MiT:
    torch.manual_seed(0)
    return MiT(**{"dims": (8, 16, 24, 32), "depths": (1, 2, 1, 1), "num_heads": (1, 2, 3, 4), **options})


@pytest.mark.parametrize("name", SIZES)
def test_variants_have_the_official_size_and_cost(name: str) -> None:
    with torch.device("meta"):
        backbone, x = BACKBONES.build({"type": name}), torch.empty(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter:
        backbone(x)
    params, macs = SIZES[name]
    assert sum(p.numel() for p in backbone.parameters()) == params
    assert counter.get_total_flops() / 2e9 == pytest.approx(macs, abs=1e-4)


def test_initialisation_is_the_official_one() -> None:
    torch.manual_seed(0)
    state = MiT().state_dict()
    for key, std in INIT.items():
        assert state[key].std().item() == pytest.approx(std, rel=0.05), key
    assert state["block1.0.mlp.dwconv.dwconv.weight"].std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.1)
    assert not any(value.any() for key, value in state.items() if key.endswith("bias"))


def test_epsilons_of_norms_are_the_official_ones() -> None:
    norms = {n: m.eps for n, m in MiT().named_modules() if isinstance(m, nn.LayerNorm)}
    coarse = {n for n, eps in norms.items() if eps == 1e-5}
    assert coarse == {n for n in norms if n.startswith("patch_embed") or n.endswith("attn.norm")}
    assert {norms[n] for n in norms.keys() - coarse} == {1e-6}


def test_drop_path_grows_linearly_over_all_blocks() -> None:
    backbone = tiny(drop_path=0.4)
    rates = [m.p for n, m in backbone.named_modules() if n.endswith("drop_path")]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_only_the_maps_that_are_asked_for_are_built_and_returned() -> None:
    backbone, whole = tiny(out_indices=(0, 2)).eval(), tiny().eval()
    whole.load_state_dict(backbone.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 64)
    assert not any(key.startswith(("patch_embed4", "block4", "norm4")) for key in backbone.state_dict())
    assert [s.stride[0] for s in backbone.specs] == [4, 16]
    for few, all_ in zip(backbone(x).maps, (whole(x).maps[0], whole(x).maps[2]), strict=True):
        torch.testing.assert_close(few, all_)


def test_frozen_stages_neither_learn_nor_drop_paths() -> None:
    backbone = tiny(frozen_stages=2, drop_path=0.5).train()
    sum(m.square().mean() for m in backbone(torch.randn(2, 3, 64, 64)).maps).backward()
    frozen = {n.partition(".")[0] for n, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == {f"{part}{i}" for part in ("patch_embed", "block", "norm") for i in (1, 2)}
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)
    assert not backbone.block2.training
    assert backbone.block3.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": (1, 2, 5, 4)}, "24 channels into 5 heads"),
        ({"depths": (1, 1)}, "4 stages"),
        ({"out_indices": ()}, "token=True"),
        ({"out_indices": (2, 1)}, "out_indices"),
        ({"out_indices": (0, 4)}, "out_indices"),
        ({"out_indices": (-1,)}, "out_indices"),
        ({"frozen_stages": 3, "out_indices": (0, 1)}, "frozen_stages"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**options)


def test_images_too_small_for_the_reductions_are_refused() -> None:
    assert tiny()(torch.randn(1, 3, 29, 40)).maps[0].shape[2:] == (8, 10)
    with pytest.raises(ValueError, match="at least 29"):
        tiny()(torch.randn(1, 3, 28, 64))


def test_the_token_is_the_mean_of_the_last_map() -> None:
    features = tiny(token=True, out_indices=(3,)).eval()(torch.randn(2, 3, 64, 96))
    assert features.token is not None
    torch.testing.assert_close(features.token, features.maps[0].mean(dim=(2, 3)))
    assert tiny(token=True).specs == ()


def assert_translated(foreign: dict[str, Tensor], backbone: MiT) -> None:
    translated, state = MiT.translate(foreign), backbone.state_dict()
    assert translated.keys() == state.keys()
    for key, value in state.items():
        torch.testing.assert_close(translated[key], value, msg=key)


def test_weights_of_mmsegmentation_are_renamed() -> None:
    backbone, foreign = tiny(), {}
    names = {"attn.proj": "attn.attn.out_proj", "mlp.fc1": "ffn.layers.0", "mlp.fc2": "ffn.layers.4"}
    names |= {"mlp.dwconv.dwconv": "ffn.layers.1"}
    state = backbone.state_dict()
    for key, value in state.items():
        part, stage, rest = key[: key.index(".") - 1], int(key[key.index(".") - 1]) - 1, key[key.index(".") + 1 :]
        position = {"patch_embed": 0, "block": 1, "norm": 2}[part]
        if part == "patch_embed":
            rest = rest.replace("proj", "projection")
        if "attn.kv." in key:
            continue
        if "attn.q." in key:
            value = torch.cat([value, state[key.replace("attn.q", "attn.kv")]])
            rest = rest.replace("attn.q.", "attn.attn.in_proj_")
        for official, other in names.items():
            rest = rest.replace(official, other)
        if rest.endswith(("ffn.layers.0.weight", "ffn.layers.4.weight")):
            value = value[:, :, None, None]
        foreign[f"layers.{stage}.{position}.{rest}"] = value
    assert "layers.1.1.0.attn.attn.in_proj_weight" in foreign
    assert_translated(foreign, backbone)
