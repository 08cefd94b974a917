"""MobileViT: sizes of the variants, names, initialisation, settings, odd sizes, and what is built."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from densevit.api import create_model
from densevit.backbones import MobileViT
from densevit.backbones.mobilevit import _fold, _unfold
from densevit.errors import ConfigError
from densevit.registry import BACKBONES
from densevit.weights import load_weights

KEYS = Path(__file__).parents[3] / "shared" / "oracle" / "keys"

# Of the official models: channels of the maps, parameters, multiply-adds in G for an image of 256 x 256; the
# classifier of ImageNet is counted.
SIZES = {
    "mobilevit_xxs": ((24, 48, 64, 80), 1_272_024, 0.4074),
    "mobilevit_xs": ((48, 64, 80, 96), 2_317_848, 1.0259),
    "mobilevit_s": ((64, 96, 128, 160), 5_578_632, 2.0008),
}
# Standard deviations right after official construction of MobileViT-XXS.
INIT = {
    "conv_1.block.conv.weight": 0.110916,
    "layer_1.0.block.exp_1x1.block.conv.weight": 0.14845,
    "layer_1.0.block.conv_3x3.block.conv.weight": 0.194247,
    "layer_5.1.global_rep.0.pre_norm_mha.1.qkv_proj.weight": 0.072184,
    "layer_5.1.global_rep.0.pre_norm_mha.1.out_proj.weight": 0.102308,
    "layer_5.1.global_rep.0.pre_norm_ffn.1.weight": 0.082926,
    "layer_5.1.global_rep.2.pre_norm_ffn.4.weight": 0.08327,
    "conv_1x1_exp.block.conv.weight": 0.064743,
}


def tiny(**options: Any) -> MobileViT:
    torch.manual_seed(0)
    sizes = {"channels": (8, 8, 12, 16, 20), "dims": (16, 20, 24), "depths": (1, 2, 1), "expansion": 2}
    return MobileViT(**{**sizes, **options})


@pytest.mark.parametrize("name", SIZES)
def test_variants_have_the_official_size_and_cost(name: str) -> None:
    channels, params, macs = SIZES[name]
    with torch.device("meta"):
        backbone, x = BACKBONES.build({"type": name, "token": True}).eval(), torch.empty(1, 3, 256, 256)
        maps = BACKBONES.build({"type": name}).specs
    with FlopCounterMode(display=False) as counter:
        backbone(x)
    classifier = 1000 * backbone.token_channels
    assert sum(p.numel() for p in backbone.parameters()) + classifier + 1000 == params
    assert (counter.get_total_flops() / 2 + classifier) / 1e9 == pytest.approx(macs, abs=1e-4)
    assert [(spec.channels, *spec.stride) for spec in maps] == [
        (c, stride, stride) for c, stride in zip(channels, (4, 8, 16, 32), strict=True)
    ]


def official(name: str, prefix: str = "") -> dict[str, tuple[int, ...]]:
    path = KEYS / f"{prefix}{name}.json"
    if not path.exists():
        pytest.skip("the lists of official names are not beside the repository")
    return {key: tuple(shape) for key, shape in json.loads(path.read_text()).items()}


@pytest.mark.parametrize("name", SIZES)
def test_names_and_shapes_are_the_official_ones(name: str) -> None:
    expected = {key: shape for key, shape in official(name).items() if not key.startswith("classifier.")}
    with torch.device("meta"):
        backbone = BACKBONES.build({"type": name, "token": True})
    assert {key: tuple(value.shape) for key, value in backbone.state_dict().items()} == expected


@pytest.mark.parametrize("prefix", ["", "timm_"])
def test_a_file_of_the_official_release_or_of_timm_fills_the_classifier(prefix: str) -> None:
    state = {key: torch.ones(shape) for key, shape in official("mobilevit_xxs", prefix).items()}
    model = create_model("mobilevit_xxs")
    report = load_weights(model, state, verbose=False)
    assert report.missing == report.unexpected == []
    assert report.skipped == report.resized == {}
    assert (model.head.fc.weight == 1).all()


def test_a_file_of_a_classifier_serves_dense_tasks() -> None:
    classifier, dense = tiny(token=True), tiny()
    report = load_weights(dense, classifier.state_dict(), verbose=False)
    assert report.missing == []
    assert {name.split(".")[1] for name in report.unexpected} == {"conv_1x1_exp"}


def test_initialisation_is_that_of_the_official_code() -> None:
    torch.manual_seed(0)
    state = BACKBONES.build({"type": "mobilevit_xxs", "token": True}).state_dict()
    for key, std in INIT.items():
        assert state[key].std().item() == pytest.approx(std, rel=0.08), key
    assert not any(value.any() for key, value in state.items() if key.endswith("bias"))


def test_epsilons_and_momentum_of_norms_are_the_official_ones() -> None:
    norms = [m for m in tiny(token=True).modules() if isinstance(m, nn.LayerNorm | nn.BatchNorm2d)]
    assert {m.eps for m in norms} == {1e-5}
    assert {m.momentum for m in norms if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_dropout_follows_attention_and_feed_forward_layers_and_drop_path_grows() -> None:
    modules = dict(tiny(dropout=0.3, drop_path=0.6).named_modules())
    dropouts = {name.partition("global_rep.")[2] for name, m in modules.items() if isinstance(m, nn.Dropout) and m.p}
    assert {name.partition(".")[2] for name in dropouts} == {"pre_norm_mha.2", "pre_norm_ffn.5"}
    assert {m.p for m in modules.values() if isinstance(m, nn.Dropout)} == {0.3}
    rates = [m.p for name, m in modules.items() if name.endswith("drop_path")]
    assert rates == pytest.approx([0, 0.2, 0.4, 0.6])


def test_drop_path_drops_all_of_a_sample_or_nothing() -> None:
    layer = tiny(drop_path=0.5, dropout=0.0).layer_5[1].global_rep[0].train()
    x = torch.randn(8, 4, 6, 24)
    unchanged = (layer.drop_path(x) == 0).flatten(1)
    assert 0 < unchanged.all(1).sum() < 8
    assert unchanged.any(1).equal(unchanged.all(1))


def test_patches_are_unfolded_by_place_and_folded_back() -> None:
    x = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    tokens = _unfold(x)
    assert tokens.shape == (2, 4, 6, 3)
    for place, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        assert torch.equal(tokens[:, place], x[:, :, row::2, column::2].flatten(2).mT)
    assert torch.equal(_fold(tokens, (2, 3)), x)


def test_attention_sees_the_same_place_of_all_patches_and_no_other() -> None:
    layer = tiny().layer_3[1].global_rep[0].eval()
    x = torch.randn(1, 4, 6, 16)
    changed = x.clone()
    changed[0, 1, 2] += 1
    differs = (layer(x) != layer(changed)).any(-1)[0]
    assert differs[1].all()
    assert not differs[[0, 2, 3]].any()


@pytest.mark.parametrize("size", [(64, 64), (65, 100), (97, 33), (5, 160)])
def test_maps_of_any_size_have_the_cells_that_their_strides_say(size: tuple[int, int]) -> None:
    features = tiny(token=True, out_indices=(0, 1, 2, 3)).eval()(torch.randn(2, 3, *size))
    assert [m.shape[2:] for m in features.maps] == [tuple(-(-n // s) for n in size) for s in (4, 8, 16, 32)]
    assert features.token is not None
    assert features.token.shape == (2, 80)


def test_only_what_is_asked_for_is_built_and_returned() -> None:
    few, whole = tiny(out_indices=(0, 2)).eval(), tiny(out_indices=(0, 1, 2, 3), token=True).eval()
    whole.load_state_dict(few.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 96)
    assert not any(k.startswith(("layer_5", "conv_1x1_exp")) for k in few.state_dict())
    for got, expected in zip(few(x).maps, (whole(x).maps[0], whole(x).maps[2]), strict=True):
        torch.testing.assert_close(got, expected)


def test_maps_are_channels_last() -> None:
    features = tiny().eval()(torch.randn(2, 3, 64, 96))
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in features.maps)


def test_frozen_layers_neither_learn_nor_count_statistics() -> None:
    backbone = tiny(frozen_stages=2).train()
    sum(m.square().mean() for m in backbone(torch.randn(2, 3, 64, 64)).maps).backward()
    frozen = {n.partition(".")[0] for n, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == {"conv_1", "layer_1", "layer_2", "layer_3"}
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)
    counts = {n.partition(".")[0] for n, b in backbone.named_buffers() if n.endswith("batches_tracked") and not b}
    assert counts == frozen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, "16 channels into 3 heads"),
        ({"channels": (8, 8, 12, 16)}, "5 channels, 3 dims and 3 depths"),
        ({"depths": (1, 1, 1, 1)}, "5 channels, 3 dims and 3 depths"),
        ({"out_indices": ()}, "token=True"),
        ({"out_indices": (0, 4)}, "out_indices"),
        ({"out_indices": (0,), "frozen_stages": 2}, "frozen_stages"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**options)
