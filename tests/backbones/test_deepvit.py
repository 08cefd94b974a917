"""DeepViT: sizes of the variants, names, initialisation, re-attention, positions, and what is built."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from densevit.backbones import DeepViT
from densevit.backbones.deepvit import ReAttention
from densevit.errors import ConfigError
from densevit.layers import SelfAttention
from densevit.registry import BACKBONES
from densevit.weights import load_weights

KEYS = Path(__file__).parents[3] / "shared" / "oracle" / "keys"

# Width, side of the images, parameters, and multiply-adds in G of the official models with their classifier.
SIZES = {
    "deepvit_16b": (384, 224, 24_426_664, 5.2723),
    "deepvit_24b": (384, 224, 36_261_448, 7.8794),
    "deepvit_32b": (384, 224, 48_096_232, 10.4864),
    "deepvit_s": (396, 224, 27_312_632, 6.3613),
    "deepvit_l": (420, 224, 58_883_708, 13.1485),
    "deepvit_l_384": (420, 384, 59_043_308, 44.792),
}
# Standard deviations right after official construction.
INIT = {
    "cls_token": 0.02,
    "pos_embed": 0.02,
    "patch_embed.conv1.weight": 0.0475,
    "patch_embed.conv2.weight": 0.0241,
    "patch_embed.proj.weight": 0.00902,
    "patch_embed.proj.bias": 0.0087,
    "blocks.0.attn.qkv.weight": 0.02,
    "blocks.11.attn.proj.weight": 0.02,
    "blocks.0.mlp.fc2.weight": 0.02,
    "blocks.11.attn.reatten_matrix.weight": 0.159,
}


def variant(name: str, **options: Any) -> DeepViT:
    """Build a variant; the end "_384" is the side of its images."""
    size = SIZES[name][1]
    return BACKBONES.build({"type": name.removesuffix("_384"), "img_size": size, **options})


def tiny(**options: Any) -> DeepViT:
    torch.manual_seed(0)
    return DeepViT(**{"img_size": 64, "dim": 32, "depth": 4, "num_heads": 4, **options})


@pytest.fixture
def attention() -> ReAttention:
    """Return re-attention whose norm has seen something."""
    torch.manual_seed(0)
    attention = ReAttention(16, 4, scale=0.5)
    with torch.no_grad():
        for tensor in (attention.var_norm.weight, attention.var_norm.running_var):
            tensor.uniform_(0.5, 2)
        for tensor in (attention.var_norm.bias, attention.var_norm.running_mean):
            tensor.normal_()
    return attention


@pytest.mark.parametrize("name", SIZES)
def test_variants_have_the_official_size_and_cost(name: str) -> None:
    dim, side, params, macs = SIZES[name]
    with torch.device("meta"):
        backbone, x = variant(name, token=True).eval(), torch.empty(1, 3, side, side)
    with FlopCounterMode(display=False) as counter:
        backbone(x)
    assert sum(p.numel() for p in backbone.parameters()) == params - 1000 * (dim + 1)
    assert counter.get_total_flops() / 2e9 == pytest.approx(macs - 1000 * dim / 1e9, abs=1e-4)


@pytest.mark.parametrize("path", sorted(KEYS.glob("deepvit_*.json")) or [None], ids=lambda p: p.stem if p else "none")
def test_names_and_shapes_are_the_official_ones(path: Path | None) -> None:
    if path is None:
        pytest.skip("the lists of official names are not beside the repository")
    official = {k: tuple(s) for k, s in json.loads(path.read_text()).items() if not k.startswith("head.")}
    with torch.device("meta"):
        backbone = variant(path.stem.lower(), token=True)
    assert {k: tuple(v.shape) for k, v in backbone.state_dict().items()} == official


def test_initialisation_is_the_official_one() -> None:
    torch.manual_seed(0)
    state = BACKBONES.build({"type": "deepvit_s", "token": True}).state_dict()
    for key, std in INIT.items():
        assert state[key].std().item() == pytest.approx(std, rel=0.1), key
    assert not any(v.any() for k, v in state.items() if k.endswith(("qkv.bias", "attn.proj.bias", "fc1.bias")))


@pytest.mark.parametrize(("name", "plain", "scale"), [("deepvit_s", 11, 33**-0.5), ("deepvit_l", 20, 1.0)])
def test_the_last_blocks_re_attend(name: str, plain: int, scale: float) -> None:
    with torch.device("meta"):
        whole, half = variant(name, token=True), variant(name, out_indices=(1,))
    kinds = [type(block.attn) for block in whole.blocks]
    assert kinds == [SelfAttention] * plain + [ReAttention] * (len(kinds) - plain)
    assert {block.attn.scale for block in whole.blocks[plain:]} == {scale}
    assert [type(block.attn) for block in half.blocks] == kinds[: len(kinds) // 2]


@pytest.mark.parametrize("training", [False, True])
def test_re_attention_is_attention_with_mixed_and_normed_maps(attention: ReAttention, training: bool) -> None:
    x = torch.randn(2, 9, 16)
    norm, conv = attention.var_norm, attention.reatten_matrix
    q, k, v = (t.unflatten(-1, (4, 4)).transpose(1, 2) for t in attention.qkv(x).chunk(3, dim=-1))
    maps = (q @ k.mT / 2).softmax(dim=-1)
    maps = torch.einsum("gh,nhij->ngij", conv.weight.flatten(1), maps) + conv.bias.view(-1, 1, 1)
    state = (norm.running_mean.clone(), norm.running_var.clone())
    maps = F.batch_norm(maps, *state, norm.weight, norm.bias, training)
    expected = attention.proj((0.5 * maps @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention.train(training)(x), expected)


def test_a_frozen_norm_takes_part_in_training_and_keeps_its_statistics(attention: ReAttention) -> None:
    attention.train().var_norm.eval()
    before = attention.var_norm.running_mean.clone()
    attention(torch.randn(2, 9, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in attention.parameters())
    assert torch.equal(attention.var_norm.running_mean, before)


def test_weights_are_dropped_before_they_are_mixed_and_in_training_only() -> None:
    attention, seen = ReAttention(16, 4, dropout=0.5).train(), []
    attention.reatten_matrix.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    attention(torch.randn(2, 9, 16))
    assert 0.4 < (seen[0] == 0).float().mean() < 0.6
    x = torch.randn(2, 9, 16)
    assert torch.equal(attention.eval()(x), attention(x))


def test_the_adjustment_scales_the_input_of_each_branch_and_divides_its_output() -> None:
    backbone = tiny(scale_adjustment=0.5, reattention_blocks=0).eval()
    block, x = backbone.blocks[0], 0.01 * torch.randn(2, 5, 32)  # so small that the epsilon shows
    expected = x + block.attn(F.layer_norm(0.5 * x, (32,), eps=1e-6)) / 0.5
    expected = expected + block.mlp(F.layer_norm(0.5 * expected, (32,), eps=1e-6)) / 0.5
    torch.testing.assert_close(block(x), expected)


def test_epsilons_of_norms_are_the_official_ones() -> None:
    modules = list(tiny(token=True, patch_embed="conv").modules())
    assert {m.eps for m in modules if isinstance(m, nn.LayerNorm)} == {1e-6}
    assert {m.eps for m in modules if isinstance(m, nn.BatchNorm2d)} == {1e-5}


def test_drop_path_grows_with_depth_whether_or_not_all_blocks_are_built() -> None:
    for options, built in (({"token": True}, 4), ({"out_indices": (1,)}, 2)):
        rates = [block.drop_path.p for block in tiny(drop_path=0.3, **options).blocks]
        assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3][:built])


def test_positions_of_other_sizes_are_resized_when_loaded_and_in_use() -> None:
    small, large = tiny(img_size=64, token=True).eval(), tiny(img_size=96, token=True).eval()
    report = load_weights(large, small.state_dict(), verbose=False)
    assert report.resized == {"backbone.pos_embed": "(1, 17, 32) -> (1, 37, 32)"}
    x = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(large(x).token, small(x).token)
    assert torch.equal(large.pos_embed[:, 0], small.pos_embed[:, 0])


@pytest.mark.parametrize("patch_embed", ["linear", "conv"])
def test_images_of_any_size_are_padded_to_whole_patches(patch_embed: str) -> None:
    backbone = tiny(patch_embed=patch_embed).eval()
    x = torch.randn(1, 3, 50, 33)
    (cut,), (padded,) = backbone(x).maps, backbone(F.pad(x, (0, 15, 0, 14))).maps
    assert cut.shape == (1, 32, 4, 3)
    assert torch.equal(cut, padded)


def test_only_what_is_asked_for_is_built() -> None:
    assert len(tiny(out_indices=(0, 2)).blocks) == 3
    assert "norm.weight" not in tiny().state_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "32 channels into 5 heads"),
        ({"patch_embed": "cnn"}, '"linear" or "conv", not \'cnn\''),
        ({"reattention_blocks": -1}, "reattention_blocks"),
        ({"scale_adjustment": 0.0}, "must be positive"),
        ({"frozen_stages": 5}, "frozen_stages"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**options)


def test_what_the_authors_do_not_decay_is_named() -> None:
    backbone = tiny(token=True)
    exempt = {n for n, p in backbone.named_parameters() if p.ndim > 1 and n.endswith(backbone.no_weight_decay)}
    assert exempt == {"cls_token", "pos_embed"}
