"""ViT-Lite, CVT and CCT: sizes of the variants, names, initialisation, positions, settings."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from densevit import create_model
from densevit.backbones.compact import VARIANTS, CompactTransformer, sinusoids
from densevit.errors import ConfigError
from densevit.registry import BACKBONES
from densevit.weights import load_weights

KEYS = Path(__file__).parents[3] / "shared" / "oracle" / "keys"

# Classes, parameters, and multiply-adds in G for an image of the size in the name, of the official models.
SIZES = {
    "vit_lite_2_4_32": (10, 214_666, 0.0153),
    "vit_lite_4_4_32": (10, 413_066, 0.0303),
    "vit_lite_6_4_32": (10, 3_190_538, 0.2182),
    "vit_lite_7_4_32": (10, 3_716_874, 0.2545),
    "cvt_2_4_32": (10, 214_539, 0.0151),
    "cvt_4_4_32": (10, 412_939, 0.0298),
    "cvt_6_4_32": (10, 3_190_283, 0.2147),
    "cvt_7_4_32": (10, 3_716_619, 0.2504),
    "cct_2_3x2_32": (10, 283_723, 0.0353),
    "cct_4_3x2_32": (10, 482_123, 0.05),
    "cct_6_3x1_32": (10, 3_233_803, 1.0138),
    "cct_6_3x2_32": (10, 3_326_923, 0.2535),
    "cct_7_3x1_32": (10, 3_760_139, 1.1816),
    "cct_7_3x2_32": (10, 3_853_259, 0.2891),
    "cct_7_7x2_224": (102, 4_573_735, 1.6046),
    "cct_14_7x2_224": (1000, 22_367_273, 5.5219),
    "cct_14_7x2_384": (1000, 22_513_193, 18.5803),
}
# Standard deviations right after official construction of CCT-7/3x1.
INIT = {
    "tokenizer.conv_layers.0.0.weight": 0.2746,
    "positional_emb": 0.2004,
    "attention_pool.weight": 0.02,
    "blocks.0.self_attn.qkv.weight": 0.02,
    "blocks.0.linear1.weight": 0.02,
}


def tiny(**options: Any) -> CompactTransformer:
    torch.manual_seed(0)
    return CompactTransformer(**{"dim": 32, "depth": 4, "kernel_size": 4, "convolutions": 0, **options})


def test_every_variant_has_its_size_and_a_twin_with_fixed_positions() -> None:
    assert SIZES.keys() == VARIANTS.keys()
    assert {f"{name}_sine" for name in VARIANTS} < set(BACKBONES.names())


@pytest.mark.parametrize("name", SIZES)
def test_variants_have_the_official_size_and_cost(name: str) -> None:
    classes, params, macs = SIZES[name]
    with torch.device("meta"):
        model = create_model(name, num_classes=classes)
        size = model.backbone.img_size
        x = torch.empty(1, 3, size, size)
    with FlopCounterMode(display=False) as counter:
        model.head(model.backbone(x))
    assert name.endswith(str(size))
    assert sum(p.numel() for p in model.parameters()) == params
    assert counter.get_total_flops() / 2e9 == pytest.approx(macs, abs=1e-4)


@pytest.mark.parametrize("path", sorted(KEYS.glob("compact_*.json")) or [None], ids=lambda p: p.stem if p else "none")
def test_official_files_cover_the_model(path: Path | None) -> None:
    if path is None:
        pytest.skip("the lists of official names are not beside the repository")
    official = {k: torch.zeros(s) for k, s in json.loads(path.read_text()).items()}
    name = re.sub(r"_(c100|fl)$", "", path.stem.removeprefix("compact_").replace("c100_sine", "sine"))
    name = name.replace("vit_", "vit_lite_")
    model = create_model(name, num_classes=len(official["classifier.fc.bias"]))
    report = load_weights(model, official, verbose=False)
    assert report.missing == report.unexpected == []
    assert report.skipped == report.resized == {}
    own = [key for key in model.state_dict() if key.startswith(("backbone.", "head."))]
    assert len(own) == len(official)


def test_initialisation_is_the_official_one() -> None:
    torch.manual_seed(0)
    state = BACKBONES.build({"type": "cct_7_3x1_32", "token": True}).state_dict()
    for key, std in INIT.items():
        assert state[key].std().item() == pytest.approx(std, rel=0.15), key
    assert not any(v.any() for k, v in state.items() if k.endswith("bias"))
    assert not tiny(class_token=True).class_emb.any()


def test_epsilons_of_norms_are_the_official_ones() -> None:
    assert {m.eps for m in tiny(token=True).modules() if isinstance(m, nn.LayerNorm)} == {1e-5}


def test_paths_are_dropped_more_often_the_deeper_they_lie() -> None:
    assert [block.drop_path.p for block in tiny(drop_path=0.3).blocks] == pytest.approx([0, 0.1, 0.2, 0.3])


def test_pooling_before_the_rectifier_changes_neither_numbers_nor_gradients() -> None:
    backbone = tiny(kernel_size=3, convolutions=2)
    x = torch.randn(2, 3, 19, 32)
    expected = x
    for conv, _, _ in backbone.tokenizer.conv_layers:
        expected = F.max_pool2d(F.relu(conv(expected)), 3, 2, 1)
    parameters = list(backbone.tokenizer.parameters())
    theirs = torch.autograd.grad(expected.square().sum(), parameters)
    found = backbone.tokenizer(x)
    torch.testing.assert_close(found, expected)
    for a, b in zip(torch.autograd.grad(found.square().sum(), parameters), theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_fixed_positions_are_sinusoids_of_the_number_of_the_cell() -> None:
    table = sinusoids(65, 256)[0]
    for cell, channel in ((0, 0), (0, 1), (3, 0), (3, 1), (64, 7), (64, 254)):
        angle = cell / 10000 ** (2 * (channel // 2) / 256)
        assert table[cell, channel].item() == pytest.approx((math.cos if channel % 2 else math.sin)(angle), abs=1e-6)


@pytest.mark.parametrize("name", ["cvt_2_4_32_sine", "cct_2_3x2_32_sine", "vit_lite_2_4_32_sine"])
def test_what_is_called_sine_does_not_learn_its_positions(name: str) -> None:
    backbone = BACKBONES.build({"type": name})
    assert "positional_emb" not in dict(backbone.named_parameters())
    torch.testing.assert_close(backbone.positional_emb, sinusoids(64 + backbone.prefix, 128))
    state = {**backbone.state_dict(), "positional_emb": torch.ones_like(backbone.positional_emb)}
    load_weights(backbone, state, verbose=False)
    assert backbone.positional_emb.eq(1).all(), "a file brings its own positions"
    with pytest.raises(ConfigError, match="learnt"):
        tiny(positions="sinus")


@pytest.mark.parametrize("class_token", [False, True])
def test_positions_of_a_file_are_resized_bilinearly(class_token: bool) -> None:
    small, large = tiny(class_token=class_token), tiny(class_token=class_token, img_size=48)
    report = load_weights(large, small.state_dict(), verbose=False)
    assert list(report.resized) == ["backbone.positional_emb"]
    prefix = int(class_token)
    grid = small.positional_emb[0, prefix:].T.reshape(1, 32, 8, 8)
    expected = F.interpolate(grid, (12, 12), mode="bilinear", align_corners=False)[0].flatten(1).T
    torch.testing.assert_close(large.positional_emb[0, prefix:], expected)
    x = torch.randn(1, 3, 48, 48)
    torch.testing.assert_close(small.eval()(x).maps[0], large.eval()(x).maps[0])


def test_sequence_pooling_weighs_tokens_and_a_class_token_replaces_it() -> None:
    pooled, classed = tiny(token=True), tiny(token=True, class_token=True)
    assert not any("attention_pool" in key for key in classed.state_dict())
    tokens = torch.randn(2, 5, 32)
    normed = pooled.norm(tokens)
    weights = pooled.attention_pool(normed).softmax(dim=1)
    torch.testing.assert_close(pooled.pool(tokens), (weights * normed).sum(dim=1))
    torch.testing.assert_close(classed.pool(tokens), classed.norm(tokens[:, 0]))


def test_the_whole_stream_is_normed_between_attention_and_feed_forward_layer() -> None:
    block, x = tiny().eval().blocks[1], torch.randn(1, 4, 32)
    y = block.norm1(x + block.self_attn(block.pre_norm(x)))
    torch.testing.assert_close(block(x), y + block.linear2(F.gelu(block.linear1(y))))


def test_attention_drops_weights_in_training_only() -> None:
    backbone, x = tiny(attn_dropout=0.5, drop_path=0.0, token=True), torch.randn(1, 3, 32, 32)
    assert not torch.equal(backbone.train()(x).token, backbone(x).token)
    assert torch.equal(backbone.eval()(x).token, backbone(x).token)


def test_frozen_blocks_and_tokenizer_do_not_learn() -> None:
    backbone = tiny(frozen_stages=2, class_token=True)
    frozen = {n.partition(".")[0] for n, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == {"tokenizer", "positional_emb", "class_emb", "blocks"}
    assert all(p.requires_grad for p in backbone.blocks[2].parameters())
    with pytest.raises(ConfigError, match="frozen_stages"):
        tiny(frozen_stages=5)


def test_maps_are_taken_after_quarters_of_the_blocks() -> None:
    backbone, x = tiny(depth=8, out_indices=(0, 2)).eval(), torch.randn(1, 3, 32, 32)
    assert len(backbone.blocks) == 6, "what nobody reads is not built"
    tokens, grid = backbone.embed(x)
    for block in backbone.blocks[:2]:
        tokens = block(tokens)
    torch.testing.assert_close(backbone(x).maps[0].flatten(2).mT, tokens)
    assert tuple(grid) == (8, 8)
