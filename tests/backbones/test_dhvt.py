"""DHVT: sizes of the variants, names, initialisation, settings, and what is built."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from densevit.backbones import DHVT
from densevit.errors import CheckpointError, ConfigError
from densevit.registry import BACKBONES
from densevit.weights import load_weights

ORACLE = Path(__file__).parents[3] / "shared" / "oracle"

# Width, classes, parameters, and multiply-adds in G for images of the size trained on, of the official classifiers.
SIZES = {
    "dhvt_tiny_cifar_patch4": (192, 100, 6_008_650, 0.3878),
    "dhvt_small_cifar_patch4": (384, 100, 23_425_450, 1.5289),
    "dhvt_tiny_cifar_patch2": (192, 100, 5_845_162, 1.7049),
    "dhvt_small_cifar_patch2": (384, 100, 22_766_698, 6.1945),
    "dhvt_tiny_domain_patch16": (192, 345, 6_105_975, 1.3581),
    "dhvt_small_domain_patch16": (384, 345, 23_788_431, 5.0329),
    "dhvt_tiny_imagenet_patch16": (192, 1000, 6_267_334, 1.3546),
    "dhvt_small_imagenet_patch16": (384, 1000, 24_040_606, 5.0331),
}


def tiny(**options: Any) -> DHVT:
    torch.manual_seed(0)
    return DHVT(**{"patch_size": 4, "dim": 32, "depth": 4, "num_heads": 4, **options})


@pytest.mark.parametrize("name", SIZES)
def test_variants_have_the_official_size_and_cost(name: str) -> None:
    dim, classes, params, macs = SIZES[name]
    with torch.device("meta"):
        backbone = BACKBONES.build({"type": name, "token": True})
        x = torch.empty(1, 3, backbone.img_size, backbone.img_size)
    with FlopCounterMode(display=False) as counter:
        backbone(x)
    assert sum(p.numel() for p in backbone.parameters()) == params - classes * (dim + 1)
    assert counter.get_total_flops() / 2e9 == pytest.approx(macs - classes * dim / 1e9, abs=6e-5)


@pytest.mark.parametrize("name", SIZES)
def test_names_and_shapes_are_the_official_ones(name: str) -> None:
    path = ORACLE / "keys" / f"{name}.json"
    if not path.exists():
        pytest.skip("the lists of official names are not beside the repository")
    official = {k: tuple(s) for k, s in json.loads(path.read_text()).items() if not k.startswith("head.")}
    with torch.device("meta"):
        backbone = BACKBONES.build({"type": name, "token": True})
    assert {k: tuple(v.shape) for k, v in backbone.state_dict().items()} == official


def test_initialisation_is_the_official_one() -> None:
    path = ORACLE / "init" / "dhvt_tiny_cifar_patch4.json"
    if not path.exists():
        pytest.skip("the statistics of the official initialisation are not beside the repository")
    official = {k: v for k, v in json.loads(path.read_text()).items() if not k.startswith("head.")}
    torch.manual_seed(0)
    state = BACKBONES.build({"type": "dhvt_tiny_cifar_patch4", "token": True}).state_dict()
    for key, expected in official.items():
        value = state[key].float()
        if expected["std"] == 0:
            assert (value == expected["mean"]).all(), key
            continue
        spread = 8 * expected["std"] / value.numel() ** 0.5
        assert value.mean().item() == pytest.approx(expected["mean"], abs=spread), key
        assert value.std().item() == pytest.approx(expected["std"], abs=spread), key
        # As wide a support: normal and uniform values of the same deviation differ in their largest.
        largest = max(abs(expected["min"]), abs(expected["max"])) / expected["std"]
        assert (value.abs().max().item() / value.std().item() > 2.2) == (largest > 2.2), key


def test_linear_layers_and_tokens_start_small_and_convolutions_as_in_pytorch() -> None:
    state = tiny(token=True, dim=128).state_dict()
    for key in ("cls_token", "blocks.0.attn.pos_embed", "blocks.0.attn.ht_proj.weight", "blocks.3.mlp.compress.weight"):
        assert state[key].std().item() == pytest.approx(0.02, rel=0.2), key
    assert state["blocks.0.mlp.conv1.weight"].std().item() == pytest.approx((3 * 128) ** -0.5, rel=0.05)
    assert state["blocks.0.mlp.conv1.bias"].any()
    assert not state["blocks.0.attn.ht_proj.bias"].any()


def test_epsilons_of_norms_are_the_official_ones() -> None:
    epsilons = {n: m.eps for n, m in tiny(token=True).named_modules() if isinstance(m, nn.LayerNorm | nn.BatchNorm2d)}
    assert len(epsilons) == 2 + 4 * 6 + 1
    assert {eps for name, eps in epsilons.items() if name.endswith((".norm1", ".norm2"))} == {1e-6}
    assert epsilons["norm"] == 1e-6
    assert {eps for name, eps in epsilons.items() if name.endswith("ht_norm") or "bn" in name} == {1e-5}
    assert {epsilons["patch_embed.proj.0.1"], epsilons["patch_embed.proj.2.1"]} == {1e-5}


def test_drop_path_grows_from_the_first_block_to_the_last() -> None:
    rates = [block.drop_path.p for block in tiny(token=True, drop_path=0.3).blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])
    assert [block.drop_path.p for block in tiny(out_indices=(1,), drop_path=0.3).blocks] == pytest.approx([0, 0.1])
    assert BACKBONES.build({"type": "dhvt_tiny_cifar_patch4"}).blocks[-1].drop_path.p == pytest.approx(0.1)


@pytest.mark.parametrize(("patch_size", "layers"), [(2, 2), (4, 3), (8, 5), (16, 7)])
def test_only_the_stem_of_the_smallest_patches_ends_in_an_activation(patch_size: int, layers: int) -> None:
    assert len(tiny(patch_size=patch_size).patch_embed.proj) == layers


@pytest.mark.parametrize("patch_size", [2, 4, 16])
@pytest.mark.parametrize("size", [(32, 32), (37, 50), (1, 3)])
def test_images_of_any_size_give_a_cell_for_each_begun_patch(patch_size: int, size: tuple[int, int]) -> None:
    backbone = tiny(patch_size=patch_size, token=True, out_indices=(3,)).eval()
    features = backbone(torch.randn(2, 3, *size))
    assert tuple(features.maps[0].shape) == (2, 32, *(-(-n // patch_size) for n in size))
    assert features.token is not None
    assert features.token.shape == (2, 32)


def test_a_turned_image_is_not_read_as_its_transpose() -> None:
    x = torch.randn(1, 3, 16, 32)
    wide, tall = (tiny().eval()(image).maps[0] for image in (x, x.transpose(2, 3)))
    assert wide.shape == tall.transpose(2, 3).shape
    assert (wide - tall.transpose(2, 3)).abs().max() > 0.01


def test_the_class_token_gets_the_mean_of_the_head_tokens() -> None:
    attention = tiny(token=True).blocks[0].attn
    x = torch.randn(2, 9, 32)
    everything = torch.cat([x, attention.head_tokens(x)], dim=1)
    attended = super(type(attention), attention).forward(everything)
    torch.testing.assert_close(attention(x)[:, 0], attended[:, 0] + attended[:, 9:].mean(dim=1))
    torch.testing.assert_close(attention(x)[:, 1:], attended[:, 1:9])


def test_dense_tasks_have_no_weights_for_the_class_token_of_the_last_block() -> None:
    dense, classifier = tiny(out_indices=(0, 1)), tiny(token=True)
    lacking = {k for k in classifier.state_dict().keys() - dense.state_dict().keys() if "blocks." not in k}
    assert lacking == {"norm.weight", "norm.bias"}
    assert [hasattr(block.mlp, "compress") for block in dense.blocks] == [True, False]
    assert all(hasattr(block.mlp, "compress") for block in classifier.blocks)


@pytest.mark.parametrize("out_indices", [(0,), (1, 3)])
def test_what_is_not_asked_for_changes_no_map(out_indices: tuple[int, ...]) -> None:
    few, whole = tiny(out_indices=out_indices).eval(), tiny(out_indices=(0, 1, 2, 3), token=True).eval()
    load_weights(few, whole.state_dict(), verbose=False)
    x = torch.randn(2, 3, 20, 28)
    for i, got in zip(out_indices, few(x).maps, strict=True):
        torch.testing.assert_close(got, whole(x).maps[i])


def test_weights_go_from_a_classifier_to_dense_tasks_and_back() -> None:
    classifier, dense = tiny(token=True), tiny()
    report = load_weights(dense, classifier.state_dict(), verbose=False)
    assert report.missing == []
    assert len(report.unexpected) == 4 + 2  # weights of the class token in the last block; the last norm
    other = tiny(token=True)
    with pytest.raises(CheckpointError, match="lacks 6 of the"):
        load_weights(other, dense.state_dict(), verbose=False)
    load_weights(other, dense.state_dict(), allow_partial=True, verbose=False)
    assert all(torch.equal(other.state_dict()[key], value) for key, value in dense.state_dict().items())


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_official_weights_serve_images_of_other_channels(channels: int) -> None:
    colour, other = tiny().eval(), tiny(in_channels=channels).eval()
    with torch.no_grad():
        colour.patch_embed.pre_affine.alpha.copy_(torch.tensor([2.0, 3.0, 4.0]).view(1, 3, 1, 1))
    report = load_weights(other, colour.state_dict(), verbose=False)
    assert report.missing == []
    assert report.skipped == {}
    expected = {1: [3.0], 2: [2.0, 3.0], 5: [2.0, 3.0, 4.0, 2.0, 3.0]}
    assert other.patch_embed.pre_affine.alpha.flatten().tolist() == expected[channels]


def test_frozen_blocks_and_stem_neither_learn_nor_drop_paths() -> None:
    backbone = tiny(frozen_stages=2, drop_path=0.5).train()
    backbone(torch.randn(2, 3, 16, 16)).maps[0].square().mean().backward()
    frozen = {n for n, p in backbone.named_parameters() if not p.requires_grad}
    expected = ("cls_token", "patch_embed.", "blocks.0.", "blocks.1.")
    assert frozen == {n for n, _ in backbone.named_parameters() if n.startswith(expected)}
    assert all((p.grad is None) == (n in frozen) for n, p in backbone.named_parameters())
    assert not backbone.blocks[1].training
    assert not backbone.patch_embed.training
    assert backbone.blocks[2].training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "32 channels into 5 heads"),
        ({"patch_size": 6}, "2, 4, 8 or 16, not 6"),
        ({"out_indices": ()}, "token=True"),
        ({"out_indices": (0, 4)}, "out_indices"),
        ({"out_indices": (0,), "frozen_stages": 2}, "frozen_stages"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**options)


def test_positions_of_heads_are_decayed_and_the_class_token_is_not() -> None:
    backbone = tiny(token=True)
    exempt = {n for n, p in backbone.named_parameters() if p.ndim > 1 and n.endswith(backbone.no_weight_decay)}
    assert exempt == {"cls_token"}
