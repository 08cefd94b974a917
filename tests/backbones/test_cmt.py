"""CMT: sizes of the variants, names, initialisation, settings, position biases at any size, weights of other sizes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from densevit.backbones import CMT, cmt_scaled
from densevit.errors import CheckpointError, ConfigError
from densevit.features import Features
from densevit.registry import BACKBONES
from densevit.weights import load_weights

ORACLE = Path(__file__).parents[3] / "shared" / "oracle"
# Of the official models: image size, parameters, multiply-adds in G; the classifier of ImageNet is counted.
SIZES = {
    "cmt_ti": (160, 9_492_426, 0.6389),
    "cmt_xs": (192, 15_247_208, 1.5469),
    "cmt_s": (224, 26_256_160, 4.0317),
    "cmt_b": (256, 45_715_076, 9.3171),
}
CLASSIFIER = 1280 * 1000
# Standard deviations right after official construction of CMT-Ti.
INIT = {
    "relative_pos_a": 1.0,
    "stem_conv1.weight": 0.116914,
    "stem_conv3.weight": 0.119854,
    "patch_embed_a.proj.weight": 0.105159,
    "patch_embed_d.proj.weight": 0.036839,
    "blocks_a.0.attn.sr.0.weight": 0.026669,
    "blocks_c.0.attn.q.weight": 0.02,
    "blocks_d.0.attn.proj.weight": 0.020024,
    "blocks_d.0.mlp.conv1.0.weight": 0.038939,
    "blocks_d.0.mlp.proj.weight": 0.013024,
    "blocks_d.0.mlp.conv2.0.weight": 0.073759,
    "blocks_d.0.proj.weight": 0.023939,
    "_fc.weight": 0.039477,
}
# Shapes of the first block of CMT-Ti's third stage in the official release; the third stage has ten.
BLOCK = {
    **{f"attn.{part}": (184, 184) for part in "qkv"},
    "attn.proj": (184, 184),
    "attn.sr.0": (184, 1, 2, 2),
    "attn.sr.1": (184,),
    "norm1": (184,),
    "norm2": (184,),
    "proj": (184, 1, 3, 3),
    "mlp.conv1.0": (662, 184, 1, 1),
    "mlp.conv1.2": (662,),
    "mlp.proj": (662, 1, 3, 3),
    "mlp.proj_bn": (662,),
    "mlp.conv2.0": (184, 662, 1, 1),
    "mlp.conv2.1": (184,),
}


def tiny(**options: Any) -> CMT:
    torch.manual_seed(0)
    sizes = {"dims": (8, 16, 24, 32), "depths": (1, 2, 1, 1), "num_heads": (1, 2, 3, 4), "stem_channels": 4}
    return CMT(**{**sizes, "img_size": 64, **options})


def loss(features: Features) -> Tensor:
    return sum((m.square().mean() for m in features.maps), torch.zeros(()))


def waves(height: int, width: int) -> Tensor:
    """Return an image of a few periods, the same at any size."""
    y, x = ((torch.arange(n) + 0.5) / n * 6.28 for n in (height, width))
    phases = torch.tensor([0.0, 1.0, 2.0])[:, None, None]
    return ((2 * y[:, None] + phases).sin() * (x + phases).cos())[None]


def places(grid: tuple[int, ...]) -> Tensor:
    """Return the heights and widths, from 0 to 1, of the centres of the cells of a grid, ``(cells, 2)``."""
    return torch.cartesian_prod(*((torch.arange(n) + 0.5) / n for n in grid))


def look_aside(backbone: CMT) -> None:
    """Let each query of the first stage, on images of 192 x 256, attend to keys above and right of it only."""
    (block,) = backbone.blocks_a
    with torch.no_grad():
        distances = places((48, 64))[:, None] - places((6, 8)) - torch.tensor([0.25, -0.25])
        backbone.relative_pos_a.copy_(-30 * distances.square().sum(-1)[None])
        for layer in (block.attn.v, block.attn.proj):
            nn.init.orthogonal_(layer.weight)


def sample(x: Tensor, stride: int, space: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Return the values of a map of an image, at the places of the cells of another grid on it."""
    ends = torch.tensor([cells * stride / n for cells, n in zip(x.shape[2:], space, strict=True)])
    where = 2 * places(grid) / ends - 1
    return F.grid_sample(x, where.flip(-1).unflatten(0, grid)[None], align_corners=False)


@pytest.mark.parametrize("name", SIZES)
def test_variants_have_the_official_size_and_cost(name: str) -> None:
    size, params, macs = SIZES[name]
    with torch.device("meta"):
        backbone, x = BACKBONES.build({"type": name, "token": True}).eval(), torch.empty(1, 3, size, size)
    with FlopCounterMode(display=False) as counter:
        backbone(x)
    assert sum(p.numel() for p in backbone.parameters()) + CLASSIFIER + 1000 == params
    assert (counter.get_total_flops() / 2 + CLASSIFIER) / 1e9 == pytest.approx(macs, abs=1e-4)


def test_names_and_shapes_are_the_official_ones() -> None:
    with torch.device("meta"):
        state = BACKBONES.build({"type": "cmt_ti", "token": True}).state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    block = {key.removeprefix("blocks_c.9."): shape for key, shape in shapes.items() if key.startswith("blocks_c.9.")}
    assert {key.removesuffix(".weight"): s for key, s in block.items() if key.endswith("weight")} == BLOCK
    assert all(block[f"{part}.bias"] == shape[:1] for part, shape in BLOCK.items())
    assert [shapes[f"relative_pos_{s}"] for s in "abcd"] == [(1, 1600, 25), (2, 400, 25), (4, 100, 25), (8, 25, 25)]
    assert shapes["_fc.weight"] == (1280, 368, 1, 1)
    assert len(shapes) == 706


@pytest.mark.parametrize("name", SIZES)
def test_every_name_of_the_official_release_is_ours(name: str) -> None:
    path = ORACLE / "keys" / f"{name}.json"
    if not path.exists():
        pytest.skip("the lists of official names are not beside the repository")
    with torch.device("meta"):
        state = BACKBONES.build({"type": name, "token": True}).state_dict()
    official = {key: shape for key, shape in json.loads(path.read_text()).items() if not key.startswith("head.")}
    assert {key: list(value.shape) for key, value in state.items()} == official


def test_initialisation_is_the_official_one() -> None:
    torch.manual_seed(0)
    state = BACKBONES.build({"type": "cmt_ti", "token": True}).state_dict()
    for key, std in INIT.items():
        assert state[key].std().item() == pytest.approx(std, rel=0.08), key
    assert not any(value.any() for key, value in state.items() if key.endswith("bias"))


def test_epsilons_of_norms_are_the_official_ones() -> None:
    backbone = tiny(token=True)
    norms = {n: m.eps for n, m in backbone.named_modules() if isinstance(m, nn.LayerNorm)}
    assert {n for n, eps in norms.items() if eps == 1e-5} == {f"patch_embed_{stage}.norm" for stage in "abcd"}
    assert {eps for n, eps in norms.items() if n.startswith("blocks_")} == {1e-6}
    assert {m.eps for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-5}


def test_position_biases_are_decayed() -> None:
    assert CMT.no_weight_decay == ()


@pytest.mark.parametrize(
    ("phi", "size", "dims", "depths"),
    [
        (-2, 160, (38, 76, 152, 304), (2, 2, 11, 2)),
        (-1, 192, (50, 100, 200, 400), (3, 3, 13, 3)),
        (0, 224, (64, 128, 256, 512), (3, 3, 16, 3)),
        (1, 256, (84, 168, 336, 672), (4, 4, 19, 4)),
    ],
)
def test_compound_scaling_is_that_of_the_paper(phi: int, size: int, dims: tuple[int], depths: tuple[int]) -> None:
    with torch.device("meta"):
        backbone = cmt_scaled(phi=phi)
    assert tuple(spec.channels for spec in backbone.specs) == dims
    assert backbone.depths == depths
    assert backbone.relative_pos_a.shape[1] == (size // 4) ** 2


@pytest.mark.parametrize(("phi", "variant"), [(-2, "cmt_ti"), (-1, "cmt_xs"), (0, "cmt_s"), (1, "cmt_b")])
def test_scaled_models_cost_about_what_the_published_ones_do(phi: int, variant: str) -> None:
    size, _, macs = SIZES[variant]
    with torch.device("meta"):
        backbone, x = cmt_scaled(phi=phi, token=True).eval(), torch.empty(1, 3, size, size)
    with FlopCounterMode(display=False) as counter:
        backbone(x)
    assert counter.get_total_flops() / 2e9 == pytest.approx(macs, rel=0.2)


@pytest.mark.parametrize("size", [(64, 64), (65, 100), (97, 33), (32, 160)])
def test_maps_of_any_size_have_the_cells_that_their_strides_say(size: tuple[int, int]) -> None:
    features = tiny(token=True, out_indices=(0, 1, 2, 3)).eval()(torch.randn(2, 3, *size))
    assert [m.shape[2:] for m in features.maps] == [tuple(-(-n // s) for n in size) for s in (4, 8, 16, 32)]
    assert features.token is not None
    assert features.token.shape == (2, 1280)


def test_a_stem_without_stride_halves_the_strides_of_the_maps() -> None:
    backbone = tiny(stem_stride=1, img_size=32).eval()
    assert [spec.stride for spec in backbone.specs] == [(2, 2), (4, 4), (8, 8), (16, 16)]
    assert backbone.divisor == (16, 16)
    assert [m.shape[2] for m in backbone(torch.randn(1, 3, 32, 32)).maps] == [16, 8, 4, 2]
    assert backbone.relative_pos_a.shape == (1, 256, 4)


def test_a_grid_smaller_than_its_reduction_is_padded() -> None:
    assert tiny(out_indices=(0,)).eval()(torch.randn(1, 3, 20, 9)).maps[0].shape == (1, 8, 5, 3)


def test_position_biases_are_used_as_they_are_at_the_training_size_only() -> None:
    backbone = tiny(img_size=(64, 96)).eval()
    used: list[Tensor] = []
    backbone.blocks_c[0].register_forward_pre_hook(lambda module, args: used.append(args[1]))
    for size in ((64, 96), (96, 64), (96, 96)):
        backbone(torch.randn(1, 3, *size))
    assert used[0] is backbone.relative_pos_c
    assert used[1].shape == used[0].shape
    assert not torch.equal(used[1], used[0])
    assert used[2].shape == (3, 36, 9)


@pytest.mark.parametrize(
    ("size", "limit"), [((193, 257), 0.15), ((208, 272), 0.28), ((224, 256), 0.28), ((288, 384), 0.28)]
)
def test_features_vary_smoothly_with_the_size_of_the_image(size: tuple[int, int], limit: float) -> None:
    backbone = tiny(img_size=(192, 256), out_indices=(0,)).eval()
    look_aside(backbone)
    expected = backbone(waves(192, 256)).maps[0]
    resized = sample(backbone(waves(*size)).maps[0], 4, size, (48, 64))
    inner = (..., slice(3, -3), slice(3, -3))  # the zeros around convolutions are as wide at any size
    assert (resized - expected)[inner].norm() < limit * expected[inner].norm()


def test_every_position_bias_learns_at_another_size() -> None:
    backbone = tiny().train()
    loss(backbone(torch.randn(2, 3, 96, 128))).backward()
    biases = [p for n, p in backbone.named_parameters() if n.startswith("relative_pos_")]
    assert len(biases) == 4
    assert all(p.grad is not None and p.grad.all() for p in biases)


def test_weights_of_another_image_size_are_resized() -> None:
    other, backbone = tiny(img_size=128, token=True, out_indices=range(4)).eval(), tiny(img_size=(64, 96)).eval()
    official = {**other.state_dict(), "head.weight": torch.randn(10, 1280), "head.bias": torch.randn(10)}
    report = load_weights(backbone, {"model": official}, verbose=False)
    assert report.resized.keys() == {f"backbone.relative_pos_{stage}" for stage in "abcd"}
    assert report.missing == []
    x = torch.randn(1, 3, 64, 96)
    for ours, theirs in zip(backbone(x).maps, other(x).maps, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_biases_of_another_number_of_heads_are_refused() -> None:
    state = {**tiny().state_dict(), "relative_pos_c": torch.randn(2, 36, 9)}
    with pytest.raises(CheckpointError, match="relative_pos_c"):
        load_weights(tiny(), state, verbose=False)


def test_drop_path_grows_linearly_over_all_blocks() -> None:
    rates = [m.p for n, m in tiny(drop_path=0.4).named_modules() if n.endswith("drop_path")]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_only_the_maps_that_are_asked_for_are_built_and_returned() -> None:
    backbone, whole = tiny(out_indices=(0, 2)).eval(), tiny().eval()
    whole.load_state_dict(backbone.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 64)
    assert not any(
        key.startswith(("relative_pos_d", "patch_embed_d", "blocks_d", "_")) for key in backbone.state_dict()
    )
    assert [s.stride[0] for s in backbone.specs] == [4, 16]
    for few, all_ in zip(backbone(x).maps, (whole(x).maps[0], whole(x).maps[2]), strict=True):
        torch.testing.assert_close(few, all_)


def test_frozen_stages_neither_learn_nor_drop_paths() -> None:
    backbone = tiny(frozen_stages=2, drop_path=0.5).train()
    statistics = {n: b.clone() for n, b in backbone.named_buffers()}
    loss(backbone(torch.randn(2, 3, 64, 64))).backward()
    frozen = {n.partition(".")[0] for n, p in backbone.named_parameters() if not p.requires_grad}
    stem = {f"stem_{part}{i}" for part in ("conv", "norm") for i in (1, 2, 3)}
    assert frozen == stem | {f"{part}_{i}" for part in ("relative_pos", "patch_embed", "blocks") for i in "ab"}
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)
    moved = {n.partition(".")[0] for n, b in backbone.named_buffers() if not torch.equal(b, statistics[n])}
    assert moved == {"blocks_c", "blocks_d"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": (1, 2, 5, 4)}, "24 channels into 5 heads"),
        ({"depths": (1, 1)}, "4 stages"),
        ({"out_indices": ()}, "out_indices"),
        ({"out_indices": (2, 1)}, "out_indices"),
        ({"out_indices": (0, 4)}, "out_indices"),
        ({"frozen_stages": 3, "out_indices": (0, 1)}, "frozen_stages"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**options)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 4, 64, 64), "3"), ((3, 64, 64), "images"), ((1, 3, 31, 64), "at least 32"), ((1, 3, 64, 0), "at least 32")],
)
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny()(torch.randn(*shape))
