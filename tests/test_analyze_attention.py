"""Attention maps: what is recorded, what is measured, and what re-attention does to them."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from densevit.api import create_model
from densevit.backbones.deepvit import ReAttention
from densevit.engine.attention_maps import (
    analyze_attention,
    mean_similarities,
    record_attention,
    similarity_of_heads,
    similarity_of_layers,
)
from densevit.errors import ConfigError
from densevit.layers import ReducedAttention, SelfAttention
from densevit.registry import BACKBONES, MODELS

# Attention layers of the smallest variant of each family that attends between tokens.
LAYERS = {
    "cct_2_3x2_32": 2,
    "cmt_ti": 16,
    "deepvit_16b": 16,
    "deepvit_s": 16,
    "dhvt_tiny_cifar_patch4": 12,
    "mit_b0": 8,
    "mobilevit_xxs": 9,
    "mvitv1_b": 16,
    "mvitv2_t": 10,
    "vit_lite_2_4_32": 2,
    "vit_ti16": 12,
}


def maps(*heads: list[float]) -> Tensor:
    """Return maps of one image with one key, by head what it contributes to each query."""
    return torch.tensor(heads)[None, ..., None]


def test_maps_that_are_equal_but_for_a_factor_have_similarity_1_and_orthogonal_ones_0() -> None:
    a, b = maps([0.8, 0.2], [0.5, 0.5]), maps([0.4, 0.1], [1.0, 1.0])
    assert similarity_of_layers(a, b) == pytest.approx(1)
    assert similarity_of_layers(maps([1.0, 0.0], [0.0, 2.0]), maps([0.0, 1.0], [1.0, 0.0])) == 0
    assert similarity_of_layers(maps([1.0, 0.0], [1.0, 0.0]), maps([1.0, 0.0], [0.0, 1.0])) == pytest.approx(0.5)


def test_keys_are_compared_with_themselves() -> None:
    a = torch.eye(3)[None, None]
    assert similarity_of_layers(a, a) == 1
    assert similarity_of_layers(a, a.roll(1, dims=2)) == 0
    lower = torch.ones(3, 3).tril()[None, None]  # 0.577, 0.707 and 1 by key
    assert similarity_of_layers(a, lower) == pytest.approx((1 + 2**-0.5 + 3**-0.5) / 3)


def test_layers_of_different_shapes_cannot_be_compared() -> None:
    assert torch.tensor(similarity_of_layers(torch.ones(1, 2, 4, 4), torch.ones(1, 4, 4, 4))).isnan()


def test_heads_that_agree_have_similarity_1_and_orthogonal_ones_0() -> None:
    assert similarity_of_heads(maps([0.8, 0.2], [0.4, 0.1])) == pytest.approx(1)
    assert similarity_of_heads(maps([1.0, 0.0], [0.0, 1.0])) == pytest.approx(0, abs=1e-6)
    two_of_three = maps([1.0, 0.0], [1.0, 0.0], [0.0, 1.0])
    assert similarity_of_heads(two_of_three) == pytest.approx(1 / 3)
    assert torch.tensor(similarity_of_heads(torch.ones(1, 1, 4, 4))).isnan()


@pytest.mark.parametrize("name", LAYERS)
def test_every_attention_layer_is_recorded_once_and_changes_nothing(name: str) -> None:
    torch.manual_seed(0)
    backbone = BACKBONES.build({"type": name, "token": True}).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = backbone(x).token
    with record_attention(backbone) as found:
        recorded = backbone(x).token
    assert torch.equal(recorded, before)
    layers = [entry.layer for entry in found]
    assert len(layers) == len(set(layers)) == LAYERS[name]
    assert all(any(layer == module for module, _ in backbone.named_modules()) for layer in layers)
    if "deepvit" not in name:
        assert all(torch.allclose(m.sum(dim=-1), torch.ones(())) for _, m in found)
    with torch.no_grad():
        backbone(x)
    assert len(found) == LAYERS[name], "recording goes on after its end"


def test_every_family_of_attention_is_recorded() -> None:
    without = {"convmixer", "mixer", "xcit"}
    clips = {"factorised", "timesformer"}  # tests/engine/test_frame_attention.py
    volumes = {"unetr"}  # the tool is for images
    families = {n.partition("_")[0] for n in BACKBONES.names() if not isinstance(BACKBONES.get(n), type)}
    families -= without | clips | volumes
    assert families - {name.partition("_")[0] for name in LAYERS} <= {"cvt"}  # in the class of cct and vit_lite


def test_weights_are_those_of_the_definition() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 9, 8)
    attention = SelfAttention(8, 2).eval()
    with record_attention(attention) as found:
        attention(x)
    q, k, _ = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in attention.qkv(x).chunk(3, dim=-1))
    torch.testing.assert_close(found[0].weights, (q @ k.mT / 2).softmax(dim=-1))
    reduced = ReducedAttention(8, 2, reduction=3).eval()
    with record_attention(reduced) as found:
        reduced(x, (3, 3))
    assert found[0].weights.shape == (2, 2, 9, 1)


def test_a_mask_counts_and_dropout_does_not() -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            mask = torch.ones(4, 4).tril().bool()
            return F.scaled_dot_product_attention(x, x, x, attn_mask=mask, dropout_p=0.5)

    torch.manual_seed(0)
    with record_attention(Masked()) as found:
        Masked()(torch.randn(1, 2, 4, 8))
    assert not found[0].weights.triu(1).any()
    assert torch.allclose(found[0].weights.sum(dim=-1), torch.ones(()))


def test_what_re_attention_records_is_what_gathers_the_values() -> None:
    torch.manual_seed(0)
    attention, x = ReAttention(16, 4, scale=0.5).eval(), torch.randn(2, 9, 16)
    with record_attention(attention) as found:
        expected = attention(x)
    v = attention.qkv(x).chunk(3, dim=-1)[2].unflatten(-1, (4, 4)).transpose(1, 2)
    gathered = attention.proj((0.5 * found[0].weights @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(gathered, expected)


def test_hooks_are_gone_after_an_error() -> None:
    attention = ReAttention(16, 4)
    with pytest.raises(RuntimeError), record_attention(attention):
        attention(torch.randn(2, 9, 5))
    assert not attention.tap._forward_hooks


@pytest.mark.parametrize(
    ("name", "message"), [("convmixer_256_8", "ConvMixer has no attention"), ("xcit_nano_12_p16", "between channels")]
)
def test_a_model_without_maps_of_tokens_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        analyze_attention(BACKBONES.build({"type": name}).eval(), [torch.randn(1, 3, 64, 64)])


def test_similarities_are_means_over_images_of_any_size() -> None:
    torch.manual_seed(0)
    backbone = BACKBONES.build({"type": "mit_b0"}).eval()
    images = [torch.randn(1, 3, 64, 64), torch.randn(1, 3, 32, 96)]
    first, second, both = (analyze_attention(backbone, batch) for batch in (images[:1], images[1:], images))
    assert both[1].between_heads != both[1].between_heads  # one head
    assert both[1].next_layer != both[1].next_layer  # the next stage begins
    assert both[0].next_layer == pytest.approx((first[0].next_layer + second[0].next_layer) / 2)
    assert both[7].between_heads == pytest.approx((first[7].between_heads + second[7].between_heads) / 2)
    assert (both[0].queries, both[0].keys) == (8 * 24, 3)
    expected = [both[i].next_layer for i in (0, 2, 4, 6)]
    assert mean_similarities(both)[0] == pytest.approx(sum(expected) / 4)


def test_the_tool_reads_images_and_writes_a_table_a_picture_and_json(call, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    for i in range(2):
        Image.effect_noise((300 + i, 260), 80).convert("RGB").save(tmp_path / f"{i}.png")
    torch.save(create_model("vit_lite_2_4_32").state_dict(), tmp_path / "w.pth")
    options = ("--model", "vit_lite_2_4_32", "--weights", tmp_path / "w.pth", "--out", tmp_path / "out")
    assert call("analyze_attention", *options, tmp_path / "*.png") == 0
    content = json.loads((tmp_path / "out" / "attention.json").read_text())
    assert [(x["layer"], x["heads"], x["keys"]) for x in content["layers"]] == [
        ("blocks.0.self_attn", 2, 65),
        ("blocks.1.self_attn", 2, 65),
    ]
    assert content["layers"][1]["next_layer"] is None
    assert Image.open(tmp_path / "out" / "attention.png").size == (768, 480)
    assert f"{content['layers'][0]['next_layer']:.4f}" in capsys.readouterr().out


def test_the_tool_reads_a_config_and_its_checkpoint(call, config: Config, scenes: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    config.dump(tmp_path / "tiny.py")
    torch.save(MODELS.build(config.model).state_dict(), tmp_path / "w.pth")
    assert (
        call(
            "analyze_attention", tmp_path / "tiny.py", tmp_path / "w.pth", scenes / "images" / "val", "--out", tmp_path
        )
        == 0
    )
    content = json.loads((tmp_path / "attention.json").read_text())
    assert content["title"].startswith("tiny, ")
    assert content["title"].endswith("images: 5")
    assert [x["layer"] for x in content["layers"]] == [f"block{i}.0.attn" for i in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--model mixer_s32", "MLPMixer has no attention"),
        ("--model deepvit_17b", "Did you mean 'deepvit_16b'"),
        ("--weights w.pth", "--weights goes with --model"),
        ("config.py", "give CONFIG CHECKPOINT and images"),
    ],
)
def test_errors_of_the_tool_say_what_is_wrong(  # type: ignore[no-untyped-def]
    call, tmp_path: Path, capsys, arguments: str, message: str
) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    assert call("analyze_attention", *arguments.split(), "--out", tmp_path / "out", tmp_path / "a.png") == 2
    assert message in capsys.readouterr().err
