"""MViT: sizes of the variants, initialisation, positions at any size, settings, and other layouts of weights."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from densevit.backbones import MViT
from densevit.backbones.mvit import VERSION1
from densevit.errors import ConfigError
from densevit.layers import relative_bias, resize_positions, resize_table
from densevit.registry import BACKBONES
from densevit.weights import load_weights

KEYS = Path(__file__).parents[3] / "shared" / "oracle" / "keys"
# Parameters, and multiply-adds in G for one image, of the official models with a classifier of 1000 classes.
# Of MViT-B-24-wide the paper gives 72.9 M and 32.7 G.
SIZES = {
    "mvitv2_t": (24_173_320, 4.677),
    "mvitv2_s": (34_870_216, 6.9597),
    "mvitv2_b": (51_472_744, 10.1024),
    "mvitv2_l": (217_992_952, 43.7112),
    "mvitv1_b": (36_982_600, 7.809),
    "mvitv1_b_24_wide": (72_961_832, 32.7181),
}
RECORDED = {
    "mvitv2_T": "mvitv2_t",
    "mvitv2_S": "mvitv2_s",
    "mvitv2_B": "mvitv2_b",
    "mvitv2_L": "mvitv2_l",
    "mvitv1_B16_img": "mvitv1_b",
}
# Standard deviations right after official construction.
INIT = {
    "patch_embed.proj.weight": 0.04766,
    "patch_embed.proj.bias": 0.0473,
    "blocks.0.attn.pool_q.weight": 0.19197,
    "blocks.0.attn.rel_pos_h": 0.01989,
    "blocks.0.attn.qkv.weight": 0.01994,
    "blocks.1.proj.weight": 0.02,
    "blocks.9.mlp.fc2.weight": 0.02,
}
VERSIONS = [pytest.param({}, id="v2"), pytest.param(VERSION1, id="v1")]


def tiny(**options: Any) -> MViT:
    torch.manual_seed(0)
    small = {"dims": (16, 32, 64, 128), "depths": (1, 1, 1, 1), "img_size": 64}
    return MViT(**{**small, "drop_path": 0.0, **options})


def meta(name: str) -> MViT:
    with torch.device("meta"):
        return BACKBONES.build({"type": name, "token": True})


@pytest.mark.parametrize("name", SIZES)
def test_variants_have_the_official_size_and_cost(name: str) -> None:
    backbone = meta(name)
    with FlopCounterMode(display=False) as counter:
        backbone(torch.empty(1, 3, backbone.img_size, backbone.img_size, device="meta"))
    params, macs = SIZES[name]
    assert sum(p.numel() for p in backbone.parameters()) + 1000 * backbone.token_channels + 1000 == params
    assert counter.get_total_flops() / 2e9 + 1000 * backbone.token_channels / 1e9 == pytest.approx(macs, abs=5e-4)


@pytest.mark.parametrize("recorded", RECORDED)
def test_tensors_have_the_official_names_and_shapes(recorded: str) -> None:
    path = KEYS / f"{recorded}.json"
    if not path.exists():
        pytest.skip("the lists of official names are not beside the repository")
    official = {k: torch.empty(v, device="meta") for k, v in json.loads(path.read_text()).items()}
    official = {k: v for k, v in MViT.translate(official).items() if not k.startswith("head.")}
    ours = meta(RECORDED[recorded]).state_dict()
    assert {k: v.shape for k, v in official.items()} == {k: v.shape for k, v in ours.items()}


def test_initialisation_is_the_official_one() -> None:
    torch.manual_seed(0)
    state = MViT(token=True).state_dict()
    for key, std in INIT.items():
        assert state[key].std().item() == pytest.approx(std, rel=0.1), key
    biases = {key for key, value in state.items() if key.endswith("bias") and value.any()}
    assert biases == {"patch_embed.proj.bias"}
    first = tiny(**VERSION1)
    assert first.cls_token is not None
    assert first.pos_embed is not None
    assert first.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)
    assert 0 < first.cls_token.abs().max().item() < 0.1


def test_epsilons_of_norms_are_the_official_ones() -> None:
    assert {m.eps for m in tiny(out_indices=(0, 3), token=True).modules() if isinstance(m, nn.LayerNorm)} == {1e-6}


def test_drop_path_grows_linearly_over_all_blocks() -> None:
    rates = [m.p for n, m in tiny(depths=(1, 2, 1, 1), drop_path=0.4).named_modules() if n.endswith("drop_path")]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_weight_decay_spares_nothing_but_norms_and_biases() -> None:
    assert tiny().no_weight_decay == tiny(**VERSION1).no_weight_decay == ()


@pytest.mark.parametrize("options", VERSIONS)
def test_only_what_is_asked_for_is_built_and_returned(options: dict[str, Any]) -> None:
    few, whole = tiny(out_indices=(0, 2), **options).eval(), tiny(out_indices=range(4), token=True, **options).eval()
    whole.load_state_dict(few.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 96)
    names = {key.partition(".")[0] for key in few.state_dict()}
    assert names & {"norm", *(f"scale{i}_norm" for i in range(2, 6))} == {"scale2_norm", "scale4_norm"}
    assert len(few.blocks) == 3
    assert few(x).token is None
    for a, b in zip(few(x).maps, (whole(x).maps[0], whole(x).maps[2]), strict=True):
        torch.testing.assert_close(a, b)
    classifier = {key.partition(".")[0] for key in tiny(token=True, **options).state_dict()}
    assert classifier == {"patch_embed", "blocks", "norm"} | ({"cls_token", "pos_embed"} if options else set())


def test_the_token_is_the_mean_or_the_class_token_after_the_norm() -> None:
    x, tokens = torch.randn(2, 3, 64, 64), []
    for options in ({}, VERSION1):
        backbone = tiny(token=True, **options).eval()
        backbone.norm.register_forward_hook(lambda module, args, output: tokens.append(output))
        torch.testing.assert_close(backbone(x).token, tokens[-1].mean(dim=1) if not options else tokens[-1])
    assert [t.shape for t in tokens] == [(2, 4, 128), (2, 128)]


def test_frozen_stages_neither_learn_nor_drop_paths() -> None:
    for options in ({}, VERSION1):
        backbone = tiny(frozen_stages=2, drop_path=0.5, **options).train()
        sum(m.square().mean() for m in backbone(torch.randn(2, 3, 64, 64)).maps).backward()
        frozen = {n.partition(".")[0] for n, p in backbone.named_parameters() if not p.requires_grad}
        stem = {"patch_embed", "cls_token", "pos_embed"} if options else {"patch_embed"}
        assert frozen == stem | {"blocks", "scale2_norm", "scale3_norm"}
        assert [block.training for block in backbone.blocks] == [False, False, True, True]
        assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)


@pytest.mark.parametrize("options", VERSIONS)
@pytest.mark.parametrize("size", [(64, 64), (33, 96), (97, 130)])
def test_maps_have_a_cell_for_every_started_stride(options: dict[str, Any], size: tuple[int, int]) -> None:
    maps = tiny(**options).eval()(torch.randn(1, 3, *size)).maps
    assert [m.shape[2:] for m in maps] == [tuple(math.ceil(n / s) for n in size) for s in (4, 8, 16, 32)]


def smooth(backbone: MViT) -> MViT:
    """Fill the positions so large that they matter, and so that neighbours are alike as after training."""
    for name, p in backbone.named_parameters():
        if "rel_pos" in name:
            distance = torch.linspace(-1, 1, len(p))[:, None]
            p.data = 3 * torch.exp(-8 * (distance - 0.3) ** 2) * torch.randn(p.shape[1])
        if name == "pos_embed":
            y, x = torch.meshgrid(*[torch.linspace(0, 1, n) for n in backbone.grid], indexing="ij")
            p.data[0, 1:] = torch.stack([torch.sin(3 * (y + i * x)) for i in range(16)], -1).flatten(0, 1)
    return backbone.double().eval()


@pytest.mark.parametrize("options", VERSIONS)
def test_features_vary_smoothly_with_the_size_of_the_image(options: dict[str, Any]) -> None:
    backbone = smooth(tiny(img_size=128, token=True, out_indices=(0,), **options))
    image = F.interpolate(torch.randn(1, 3, 4, 4).double(), (256, 256), mode="bicubic")

    def features(image: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            (finest,), token = backbone(F.interpolate(image, size, mode="bilinear", antialias=True))
        return F.interpolate(finest, (32, 32), mode="bilinear"), token

    def change(a: Tensor, b: Tensor) -> float:
        return ((a - b).norm() / b.norm()).item()

    finest, token = features(image, (128, 128))
    for n in range(132, 161, 4):
        assert change(features(image, (n, 128))[0], finest) < 0.1
    other = change(features(image.flip(3), (128, 128))[1], token)
    for size in [(160, 128), (160, 160), (192, 192)]:
        assert change(features(image, size)[1], token) < other
    assert change(features(image, (160, 128))[1], token) < other / 2


@pytest.mark.parametrize(("queries", "keys"), [(17, 5), (20, 5), (24, 6), (32, 8), (12, 3)])
def test_biases_of_other_grids_are_the_same_surface(queries: int, keys: int) -> None:
    table = torch.cos(torch.linspace(-2, 4, 31))[:, None]

    def surface(queries: int, keys: int) -> Tensor:
        bias = relative_bias(torch.ones(1, 1, queries, 1), [table, torch.zeros(1, 1)], (queries, 1), (keys, 1))
        return F.interpolate(bias, (64, 16), mode="bilinear")

    assert (surface(queries, keys) - surface(16, 4)).abs().mean() < 0.1  # tables cut or padded to size: 0.05 to 0.42


def test_at_the_size_of_training_positions_are_used_as_they_are() -> None:
    table, positions = torch.randn(27, 4), torch.randn(1, 50, 4)
    assert resize_table(table, 27) is table
    assert resize_positions(positions, (7, 7), torch.Size((7, 7)), prefix=1) is positions


def test_relative_positions_count_cells_of_the_finer_grid() -> None:
    table = torch.arange(15.0)[:, None]
    q = torch.ones(1, 1, 8, 1)
    bias = relative_bias(q, [table, torch.zeros(1, 1)], (8, 1), (4, 1))[0, 0]
    # The last key is at distance 0 of the first query; a key is two queries wide.
    assert bias[0].tolist() == [6, 4, 2, 0]
    assert bias[7].tolist() == [13, 11, 9, 7]


@pytest.mark.parametrize("options", VERSIONS)
def test_positions_of_weights_are_resized_on_loading_as_they_are_at_run_time(options: dict[str, Any]) -> None:
    small, large = tiny(**options).double().eval(), tiny(img_size=96, **options).double().eval()
    report = load_weights(large, small.state_dict(), verbose=False)
    positions = {k for k in small.state_dict() if "rel_pos" in k or k == "pos_embed"}
    assert {name.removeprefix("backbone.") for name in report.resized} == positions
    x = torch.randn(1, 3, 96, 96).double()
    for a, b in zip(large(x).maps, small(x).maps, strict=True):
        torch.testing.assert_close(a, b)


def test_tables_are_those_of_the_grid_rounded_down() -> None:
    backbone = tiny(img_size=72)  # 18, 9, 4 and 2 cells rounded down, 18, 9, 5 and 3 in truth
    assert [len(backbone.get_parameter(f"blocks.{i}.attn.rel_pos_h")) for i in range(4)] == [35, 17, 17, 7]
    assert backbone.eval()(torch.randn(1, 3, 72, 72)).maps[3].shape[2:] == (3, 3)


def test_kernels_of_length_one_in_time_become_kernels_of_images() -> None:
    backbone = tiny(**VERSION1)
    state = backbone.state_dict()
    convs = {key for key, value in state.items() if value.ndim == 4}
    released = {key: value.unsqueeze(2) if key in convs else value for key, value in state.items()}
    released["patch_embed.proj.weight"] = state["patch_embed.proj.weight"]  # 2-D or 3-D in the release
    for stem in (state["patch_embed.proj.weight"], state["patch_embed.proj.weight"].unsqueeze(2)):
        translated = MViT.translate({**released, "patch_embed.proj.weight": stem})
        assert {k: v.shape for k, v in translated.items()} == {k: v.shape for k, v in state.items()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": (1, 2, 4, 7)}, "128 channels into 7 heads"),
        ({"depths": (1, 1)}, "as many"),
        ({"out_indices": (2, 1)}, "out_indices"),
        ({"out_indices": (0, 4)}, "out_indices"),
        ({"out_indices": ()}, "return something"),
        ({"frozen_stages": 3, "out_indices": (0, 1)}, "frozen_stages"),
        ({"pool_kernel": (3, 3, 3)}, "two numbers"),
        ({"window": (7,)}, "two numbers"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**options)


def test_images_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="3"):
        tiny()(torch.randn(1, 4, 64, 64))
    with pytest.raises(ValueError, match="at least 32"):
        tiny()(torch.randn(1, 3, 31, 64))
    assert tiny(out_indices=(0, 1))(torch.randn(1, 3, 8, 9)).maps[1].shape == (1, 32, 1, 2)
