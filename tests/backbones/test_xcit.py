"""XCiT: sizes of the variants, names, initialisation, settings, and what is built."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from densevit.backbones import XCiT
from densevit.errors import ConfigError
from densevit.registry import BACKBONES
from densevit.weights import load_weights

KEYS = Path(__file__).parents[3] / "shared" / "oracle" / "keys"

# Width, parameters, and multiply-adds in G for an image of 224 x 224, of the official models with their classifier.
SIZES = {
    "xcit_nano_12_p16": (128, 3_053_224, 0.5573),
    "xcit_tiny_12_p16": (192, 6_716_272, 1.2445),
    "xcit_tiny_24_p16": (192, 12_116_896, 2.3364),
    "xcit_small_12_p16": (384, 26_253_304, 4.8535),
    "xcit_small_24_p16": (384, 47_671_384, 9.1182),
    "xcit_medium_24_p16": (512, 84_395_752, 16.1862),
    "xcit_large_24_p16": (768, 189_096_136, 36.0179),
    "xcit_nano_12_p8": (128, 3_049_016, 2.1591),
    "xcit_tiny_12_p8": (192, 6_706_504, 4.8285),
    "xcit_tiny_24_p8": (192, 12_107_128, 9.1962),
    "xcit_small_12_p8": (384, 26_213_032, 18.8494),
    "xcit_small_24_p8": (384, 47_631_112, 35.9085),
    "xcit_medium_24_p8": (512, 84_323_624, 63.7560),
    "xcit_large_24_p8": (768, 188_932_648, 141.8809),
}
# Standard deviations right after official construction.
INIT = {
    "cls_token": 0.02,
    "patch_embed.proj.0.0.weight": 0.109,
    "patch_embed.proj.4.0.weight": 0.0241,
    "pos_embeder.token_projection.weight": 0.0716,
    "pos_embeder.token_projection.bias": 0.072,
    "blocks.0.attn.qkv.weight": 0.02,
    "blocks.0.mlp.fc2.weight": 0.02,
    "blocks.0.local_mp.conv1.weight": 0.192,
    "blocks.0.local_mp.conv2.bias": 0.192,
    "cls_attn_blocks.0.attn.qkv.weight": 0.02,
}


def tiny(**options: Any) -> XCiT:
    torch.manual_seed(0)
    return XCiT(**{"dim": 32, "depth": 6, "num_heads": 4, **options})


@pytest.mark.parametrize("name", [n if "_12_" in n else pytest.param(n, marks=pytest.mark.slow) for n in SIZES])
def test_variants_have_the_official_size_and_cost_less_what_nobody_reads(name: str) -> None:
    with torch.device("meta"):
        backbone, x = BACKBONES.build({"type": name, "token": True}), torch.empty(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter:
        backbone(x)
    dim, params, macs = SIZES[name]
    assert sum(p.numel() for p in backbone.parameters()) == params - 1000 * (dim + 1)
    side = 224 // backbone.patch_size
    cells = side**2
    queries = 2 * cells * dim**2  # official class attention computes those of all tokens
    positions = 64 * dim * cells - 32 * dim * 2 * side  # officially projected per cell, here per row and column
    products = 2 * (cells + 1) * dim  # of query and keys: an elementwise product, not counted, in the official code
    expected = macs - (1000 * dim + queries + positions - products) / 1e9
    assert counter.get_total_flops() / 2e9 == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("path", sorted(KEYS.glob("xcit_*.json")) or [None], ids=lambda p: p.stem if p else "none")
def test_names_and_shapes_are_the_official_ones(path: Path | None) -> None:
    if path is None:
        pytest.skip("the lists of official names are not beside the repository")
    official = {k: tuple(s) for k, s in json.loads(path.read_text()).items() if not k.startswith("head.")}
    dense = path.stem.startswith("xcit_det_")
    with torch.device("meta"):
        backbone = BACKBONES.build({"type": path.stem.replace("det_", ""), "token": not dense})
    assert {k: tuple(v.shape) for k, v in backbone.state_dict().items()} == official


def test_initialisation_is_the_official_one() -> None:
    torch.manual_seed(0)
    state = BACKBONES.build({"type": "xcit_nano_12_p8", "token": True}).state_dict()
    for key, std in INIT.items():
        assert state[key].std().item() == pytest.approx(std, rel=0.1), key
    assert not any(v.any() for k, v in state.items() if k.endswith(("qkv.bias", "proj.bias", "fc1.bias", "fc2.bias")))
    assert all((v == 1).all() for k, v in state.items() if k.endswith("temperature"))


@pytest.mark.parametrize(("name", "scale"), [("xcit_tiny_12_p16", 1.0), ("xcit_tiny_24_p16", 1e-5)])
def test_deep_variants_start_with_tiny_branches(name: str, scale: float) -> None:
    state = BACKBONES.build({"type": name, "token": True}).state_dict()
    gammas = torch.cat([v for k, v in state.items() if "gamma" in k])
    assert torch.equal(gammas, torch.full_like(gammas, scale))


def test_epsilons_of_norms_are_the_official_ones() -> None:
    modules = list(tiny(token=True, out_indices=(0, 1, 2, 3)).modules())
    assert {m.eps for m in modules if isinstance(m, nn.LayerNorm)} == {1e-6}
    assert {m.eps for m in modules if isinstance(m, nn.BatchNorm2d)} == {1e-5}


def test_drop_path_is_the_same_at_all_blocks_and_none_in_class_attention() -> None:
    rates = {n: m.p for n, m in tiny(token=True, drop_path=0.4).named_modules() if n.endswith("drop_path")}
    assert rates == {f"blocks.{i}.drop_path": 0.4 for i in range(6)}


@pytest.mark.parametrize(
    ("name", "blocks"), [("xcit_nano_12_p16", [4, 6, 8, 12]), ("xcit_tiny_24_p8", [8, 12, 16, 24])]
)
def test_maps_are_taken_after_the_official_blocks(name: str, blocks: list[int]) -> None:
    for level, depth in enumerate(blocks):
        with torch.device("meta"):
            backbone = BACKBONES.build({"type": name, "out_indices": (level,)})
        assert len(backbone.blocks) == depth


@pytest.mark.parametrize("patch_size", [8, 16])
def test_only_what_is_asked_for_is_built_and_returned(patch_size: int) -> None:
    few = tiny(patch_size=patch_size, out_indices=(0, 2)).eval()
    whole = tiny(patch_size=patch_size, out_indices=(0, 1, 2, 3), token=True).eval()
    whole.load_state_dict(few.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 96)
    assert len(few.blocks) == 4
    assert not any(k.startswith(("fpn2", "fpn4", "cls", "norm.")) for k in few.state_dict())
    for got, expected in zip(few(x).maps, (whole(x).maps[0], whole(x).maps[2]), strict=True):
        torch.testing.assert_close(got, expected)
    assert not any(k.startswith("fpn") for k in tiny(patch_size=patch_size, token=True).state_dict())


@pytest.mark.parametrize("patch_size", [8, 16])
def test_features_vary_smoothly_with_the_size_of_the_input(patch_size: int) -> None:
    backbone = tiny(patch_size=patch_size, out_indices=(2,)).eval()
    small, large = (backbone(torch.ones(1, 3, n, n)).maps[0][0, :, n // 32, n // 32] for n in (256, 288))
    assert (small - large).abs().max() < 0.05 * small.abs().max()


def test_a_file_of_a_classifier_serves_dense_tasks() -> None:
    classifier, dense = tiny(token=True), tiny()
    report = load_weights(dense, classifier.state_dict(), verbose=False)
    assert all(name.startswith("backbone.fpn") for name in report.missing)
    assert torch.equal(dense.blocks[5].attn.qkv.weight, classifier.blocks[5].attn.qkv.weight)


def test_frozen_blocks_and_stem_neither_learn_nor_drop_paths() -> None:
    backbone = tiny(frozen_stages=2, drop_path=0.5).train()
    sum(m.square().mean() for m in backbone(torch.randn(2, 3, 64, 64)).maps).backward()
    frozen = {n.rpartition(".attn")[0] or n for n, p in backbone.named_parameters() if not p.requires_grad}
    assert {n for n in frozen if n.startswith("blocks") and n.count(".") == 1} == {"blocks.0", "blocks.1"}
    assert {n.partition(".")[0] for n in frozen} == {"patch_embed", "pos_embeder", "blocks"}
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)
    assert not backbone.blocks[1].training
    assert not backbone.patch_embed.proj[0][1].training
    assert backbone.blocks[2].training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "32 channels into 5 heads"),
        ({"patch_size": 4}, "8 or 16, not 4"),
        ({"out_indices": ()}, "token=True"),
        ({"out_indices": (2, 1)}, "out_indices"),
        ({"out_indices": (0, 4)}, "out_indices"),
        ({"out_indices": (0,), "frozen_stages": 3}, "frozen_stages"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**options)


def test_images_smaller_than_a_patch_are_refused() -> None:
    assert [tuple(m.shape[2:]) for m in tiny().eval()(torch.randn(1, 3, 16, 40)).maps] == [
        (4, 10),
        (2, 5),
        (1, 3),
        (1, 2),
    ]
    with pytest.raises(ValueError, match="at least 16"):
        tiny()(torch.randn(1, 3, 15, 64))
    with pytest.raises(ValueError, match="expected images"):
        tiny()(torch.randn(1, 4, 64, 64))


def test_what_the_paper_does_not_decay_is_named() -> None:
    backbone = tiny(token=True)
    exempt = {n for n, p in backbone.named_parameters() if p.ndim > 1 and n.endswith(backbone.no_weight_decay)}
    assert exempt == {"cls_token", *(f"blocks.{i}.attn.temperature" for i in range(6))}
