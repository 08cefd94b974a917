"""ViT: sizes of the variants, names, initialisation, poolings, positions, settings."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from densevit.api import create_model
from densevit.backbones import ViT
from densevit.backbones.vit import sincos2d
from densevit.engine.complexity import complexity
from densevit.errors import ConfigError
from densevit.registry import BACKBONES
from densevit.weights import load_weights

KEYS = Path(__file__).parents[3] / "shared" / "oracle" / "keys"
RECORDED: dict[str, dict[str, Any]] = {
    "bvvit_Ti16_gap_64": {"type": "vit_ti16"},
    "bvvit_Ti16_map_64": {"type": "vit_ti16", "pool": "map"},
    "bvvit_Ti16_tok_64": {"type": "vit_ti16", "pool": "tok"},
    "bvvit_S16_gap_sincos_64": {"type": "vit_s16", "positions": "sincos2d"},
    "bvvit_S16_map_rep_96x64": {"type": "vit_s16", "pool": "map", "representation": True},
}

# Width, depth, width of the feed-forward layers, patch, and parameters of the official model with its classifier of
# 1000 classes; None where none was recorded.
SIZES = {
    "vit_ti16": (192, 12, 768, 16, 5_717_032),
    "vit_s16": (384, 12, 1536, 16, 22_049_896),
    "vit_s32": (384, 12, 1536, 32, None),
    "vit_b16": (768, 12, 3072, 16, 86_566_120),
    "vit_b32": (768, 12, 3072, 32, None),
    "vit_l16": (1024, 24, 4096, 16, 304_324_584),
    "vit_g14": (1408, 40, 6144, 14, 1_012_608_616),
    "vit_gigantic14": (1664, 48, 8192, 14, 1_844_437_352),
}


def tiny(**options: Any) -> ViT:
    torch.manual_seed(0)
    return ViT(**{"dim": 32, "depth": 4, "num_heads": 4, "hidden": 64, "img_size": 64, **options})


def images(*size: int) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, *size)


@pytest.mark.parametrize("name", SIZES)
def test_variants_have_the_official_size(name: str) -> None:
    dim, depth, hidden, patch, params = SIZES[name]
    with torch.device("meta"):
        model = create_model(name)
    cells = (224 // patch) ** 2
    block = 4 * dim * dim + 2 * dim * hidden
    vectors = 9 * dim + hidden  # of a block: biases of 3 + 1 + 1 + 1 linear layers, and two norms
    ends = (3 * patch**2 + 1 + cells + 2) * dim + 1000 * (dim + 1)
    total = complexity(model, (224, 224))[0]
    assert total.params == ends + depth * (block + vectors)
    assert total.params == params or params is None
    macs = cells * 3 * patch**2 * dim + depth * (cells * block + 2 * cells**2 * dim) + 1000 * dim
    assert total.macs == macs


@pytest.mark.parametrize("name", RECORDED)
def test_names_and_shapes_are_the_official_ones(name: str) -> None:
    path = KEYS / f"{name}.json"
    if not path.exists():
        pytest.skip("the lists of official names are not beside the repository")
    official = {key.replace("/", "."): torch.zeros(shape) for key, shape in json.loads(path.read_text()).items()}
    with torch.device("meta"):
        backbone = BACKBONES.build({**RECORDED[name], "img_size": (96, 64) if "96x64" in name else 64, "token": True})
    shapes = {k: tuple(v.shape) for k, v in ViT.translate(official).items() if not k.startswith("head.")}
    assert {k: tuple(v.shape) for k, v in backbone.state_dict().items()} == shapes


def test_initialisation_is_the_official_one() -> None:
    torch.manual_seed(0)
    options = {"type": "vit_ti16", "token": True, "representation": True, "pool": "map"}
    state = BACKBONES.build(options).state_dict()
    stds = {
        "pos_embed": 192**-0.5,
        "patch_embed.proj.weight": (3 * 16**2) ** -0.5,
        "blocks.3.mlp.fc1.weight": math.sqrt(2 / (192 + 768)),
        "blocks.3.mlp.fc2.bias": 1e-6,
        "blocks.3.attn.proj.weight": 192**-0.5,
        "attn_pool.latent": math.sqrt(2 / 193),
        "attn_pool.mlp.fc2.weight": math.sqrt(2 / (192 + 768)),
        "attn_pool.mlp.fc1.bias": 1e-6,
        "pre_logits.weight": 192**-0.5,
    }
    for key, std in stds.items():
        assert state[key].std().item() == pytest.approx(std, rel=0.12), key
    # Uniform, and as projections of 192 to 192, each for itself.
    for key in ("blocks.3.attn.qkv.weight", "attn_pool.kv.weight", "attn_pool.q.weight"):
        assert state[key].abs().max().item() == pytest.approx(math.sqrt(6 / 384), rel=1e-3), key
    zero = ("qkv.bias", "proj.bias", "kv.bias", "q.bias", "norm.bias", "pre_logits.bias")
    assert not any(value.any() for key, value in state.items() if key.endswith(zero))
    assert not tiny(pool="tok").cls_token.any()


def test_epsilons_of_norms_are_the_official_ones() -> None:
    modules = tiny(token=True, pool="map").modules()
    assert {m.eps for m in modules if isinstance(m, nn.LayerNorm)} == {1e-6}


def test_gelu_is_approximated_unless_told_otherwise() -> None:
    x = images(64, 64)
    approximated, exact = (tiny(token=True, gelu=gelu).eval()(x).token for gelu in ("tanh", "exact"))
    assert 1e-6 < (approximated - exact).abs().max() < 0.05
    assert tiny().blocks[0].mlp.approximate == "tanh"


def test_drop_path_grows_from_block_to_block() -> None:
    assert [block.drop_path.p for block in tiny(drop_path=0.3).blocks] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert [block.drop_path.p for block in tiny(drop_path=0.3, out_indices=(1,)).blocks] == pytest.approx([0, 0.1])


def test_the_mean_is_of_normed_tokens() -> None:
    backbone = tiny(token=True, out_indices=(3,)).eval()
    nn.init.normal_(backbone.norm.weight)
    features = backbone(images(64, 96))
    expected = backbone.norm(features.maps[0].flatten(2).mT).mean(1)
    torch.testing.assert_close(features.token, expected)


def test_attention_pooling_reads_normed_tokens_and_adds_no_query() -> None:
    backbone = tiny(token=True, pool="map", out_indices=(3,)).eval()
    nn.init.normal_(backbone.norm.weight)
    nn.init.normal_(backbone.attn_pool.kv.bias)
    features, pool = backbone(images(64, 64)), backbone.attn_pool
    attention = nn.MultiheadAttention(32, 4, batch_first=True)
    attention.in_proj_weight.data = torch.cat([pool.q.weight, pool.kv.weight])
    attention.in_proj_bias.data = torch.cat([pool.q.bias, pool.kv.bias])
    attention.out_proj.load_state_dict(pool.proj.state_dict())
    tokens = backbone.norm(features.maps[0].flatten(2).mT)
    y = attention(pool.latent.expand(2, -1, -1), tokens, tokens)[0][:, 0]
    torch.testing.assert_close(features.token, y + pool.mlp(pool.norm(y)), rtol=1e-4, atol=1e-5)


def test_the_class_token_has_no_position() -> None:
    backbone = tiny(token=True, pool="tok")
    nn.init.normal_(backbone.cls_token)
    x, grid = backbone.embed(images(64, 96))
    assert tuple(grid) == (4, 6)
    torch.testing.assert_close(x[:, :1], backbone.cls_token.expand(2, -1, -1))
    assert backbone.pos_embed.shape == (1, 16, 32)


def test_the_representation_is_a_layer_and_tanh_after_the_pooling() -> None:
    plain, represented = tiny(token=True).eval(), tiny(token=True, representation=True).eval()
    represented.load_state_dict(plain.state_dict(), strict=False)
    x = images(64, 64)
    torch.testing.assert_close(represented(x).token, represented.pre_logits(plain(x).token).tanh())


def test_fixed_positions_are_sines_and_cosines_of_column_and_row() -> None:
    table = sincos2d((3, 5), 16)[0].unflatten(0, (3, 5)).numpy()
    for row in range(3):
        for column in range(5):
            angles = [[at / 10000 ** (i / 3) for i in range(4)] for at in (column, row)]
            expected = [f(a) for a in angles for f in (np.sin, np.cos)]
            np.testing.assert_allclose(table[row, column], np.concatenate(expected), atol=1e-6)


def test_fixed_positions_are_kept_nowhere_and_serve_any_size() -> None:
    fixed, learnt = tiny(positions="sincos2d").eval(), tiny().eval()
    assert learnt.state_dict().keys() - fixed.state_dict().keys() == {"pos_embed"}
    x = images(96, 48)
    torch.testing.assert_close(
        fixed.embed(x)[0], fixed.patch_embed.proj(x).flatten(2).mT + sincos2d((6, 3), 32), rtol=1e-4, atol=1e-5
    )
    assert fixed.double().embed(x.double())[0].dtype == torch.float64


def test_learnt_positions_are_resized_alike_on_the_way_and_when_loaded() -> None:
    small, large = tiny(token=True, pool="tok").eval(), tiny(token=True, pool="tok", img_size=96).eval()
    report = load_weights(large, small.state_dict(), verbose=False)
    assert report.resized == {"backbone.pos_embed": "(1, 16, 32) -> (1, 36, 32)"}
    torch.testing.assert_close(small(images(96, 96)).token, large(images(96, 96)).token)


def test_images_are_padded_to_whole_patches() -> None:
    backbone = tiny(patch_size=14, img_size=56).eval()
    x = images(50, 60)
    padded = nn.functional.pad(x, (0, 10, 0, 6))
    assert backbone(x).maps[0].shape == (2, 32, 4, 5)
    torch.testing.assert_close(backbone(x).maps[0], backbone(padded).maps[0])


@pytest.mark.parametrize("pool", ["gap", "map", "tok"])
def test_dense_tasks_build_nothing_after_the_blocks(pool: str) -> None:
    dense, classifier = tiny(pool=pool).eval(), tiny(pool=pool, token=True, representation=True).eval()
    assert not any(key.startswith(("norm", "attn_pool", "pre_logits")) for key in dense.state_dict())
    load_weights(dense, classifier.state_dict(), verbose=False)
    assert torch.equal(dense.blocks[3].attn.qkv.weight, classifier.blocks[3].attn.qkv.weight)
    assert dense(images(64, 64)).maps[0].shape == (2, 32, 4, 4)


def test_frozen_blocks_and_stem_do_not_learn() -> None:
    backbone = tiny(pool="tok", frozen_stages=2)
    frozen = {name for name, p in backbone.named_parameters() if not p.requires_grad}
    assert {".".join(name.split(".")[:2]) for name in frozen} == {
        "pos_embed",
        "cls_token",
        "patch_embed.proj",
        "blocks.0",
        "blocks.1",
    }


def test_what_the_paper_does_not_decay_is_named() -> None:
    for pool, own in (("gap", set()), ("map", {"attn_pool.latent"}), ("tok", {"cls_token"})):
        backbone = tiny(token=True, pool=pool)
        exempt = {n for n, p in backbone.named_parameters() if p.ndim > 1 and n.endswith(backbone.no_weight_decay)}
        assert exempt == {"pos_embed"} | own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "32 channels into 5 heads"),
        ({"pool": "mean"}, "pool of ViT is one of 'gap', 'map', 'tok', not 'mean'"),
        ({"positions": "sine"}, "'sincos2d', not 'sine'"),
        ({"gelu": "none"}, "'tanh', 'exact', not 'none'"),
        ({"positions": "sincos2d", "dim": 30, "num_heads": 3}, "a dim that 4 divides, not 30"),
        ({"frozen_stages": 5}, "frozen_stages"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**options)


def test_the_largest_variant_is_found_by_its_letter() -> None:
    with pytest.raises(ConfigError, match="vit_g14"):
        BACKBONES.build({"type": "vit_G14"})
