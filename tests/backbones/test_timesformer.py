"""TimeSformer: sizes of the variants, names, initialisation, attention over time, positions, start from images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from densevit.api import create_model
from densevit.backbones import TimeSformer, ViT
from densevit.engine.complexity import complexity
from densevit.errors import CheckpointError, ConfigError
from densevit.registry import BACKBONES
from densevit.weights import load_weights

GOLDEN = Path(__file__).parents[1] / "golden"
KEYS = Path(__file__).parents[3] / "shared" / "oracle" / "keys"
ATTENTIONS = ("divided", "joint", "space")
SMALL = {"dim": 32, "depth": 4, "num_heads": 4, "hidden": 64, "img_size": 64}

# Frames, side, and what was counted of the official model with its classifier of 400 classes: parameters, GMACs.
SIZES = {
    "timesformer_base": (8, 224, 121_566_352, 195.830),
    "timesformer_hr": (16, 448, 122_024_080, 1702.686),
    "timesformer_large": (96, 224, 121_633_936, 2379.857),
    "timesformer_joint_base": (8, 224, 86_112_400, 179.563),
    "timesformer_space_base": (8, 224, 86_106_256, 140.505),
}
RECORDED: dict[str, dict[str, Any]] = {
    "timesformer_base": {"type": "timesformer_base"},
    "timesformer_HR": {"type": "timesformer_hr"},
    "timesformer_L": {"type": "timesformer_large"},
    "timesformer_joint": {"type": "timesformer_joint_base"},
    "timesformer_spaceonly": {"type": "timesformer_space_base"},
    "timesformer_joint_s64f4": {"type": "timesformer_joint_base", "img_size": 64, "num_frames": 4},
}


def tiny(**options: Any) -> TimeSformer:
    torch.manual_seed(0)
    return TimeSformer(**{**SMALL, "num_frames": 4, **options})


def randomise(module: nn.Module) -> None:
    """Fill also what starts at zero, so that nothing is without effect."""
    torch.manual_seed(3)
    for name, p in module.named_parameters():
        nn.init.normal_(p, 1.0 if name.endswith("norm.weight") else 0.0, 0.1)


def clips(*space: int, batch: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 3, *space)


@pytest.mark.parametrize("name", SIZES)
def test_variants_have_the_official_size(name: str) -> None:
    frames, side, params, macs = SIZES[name]
    with torch.device("meta"):
        model = create_model(name, num_classes=400)
    assert (model.backbone.num_frames, model.backbone.img_size) == (frames, side)
    total = complexity(model, (frames, side, side))[0]
    assert total.params == params
    assert total.macs / 1e9 == pytest.approx(macs, abs=0.001)


@pytest.mark.parametrize("name", RECORDED)
def test_names_and_shapes_are_the_official_ones(name: str) -> None:
    path = KEYS / f"{name}.json"
    if not path.exists():
        pytest.skip("the lists of official names are not beside the repository")
    with torch.device("meta"):
        state = BACKBONES.build({**RECORDED[name], "token": True}).state_dict()
    official = {k: tuple(s) for k, s in json.loads(path.read_text()).items() if not k.startswith("model.head.")}
    assert {f"model.{key}": tuple(value.shape) for key, value in state.items()} == official


def test_an_official_checkpoint_is_read_with_its_head() -> None:
    model = create_model("TimeSformer", num_classes=10, **SMALL, num_frames=4)
    randomise(model)
    official = {f"model.{k.removeprefix('backbone.')}": v for k, v in model.state_dict().items()}
    official = {k.replace("model.head.fc.", "model.head."): v.clone() for k, v in official.items()}
    other = create_model("TimeSformer", num_classes=10, **SMALL, num_frames=4)
    report = load_weights(other, {"cfg": "", "epoch": 15, "model_state": official}, verbose=False)
    assert report.missing == report.unexpected == report.completed == []
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in other.state_dict().items())


def test_initialisation_is_the_official_one() -> None:
    state = tiny(dim=192, token=True).state_dict()
    zero = (
        "temporal_fc.weight",
        "time_embed",
        "qkv.bias",
        "fc1.bias",
        "fc2.bias",
        "attn.proj.bias",
        "temporal_fc.bias",
    )
    assert not any(value.any() for key, value in state.items() if key.endswith(zero))
    for key in ("pos_embed", "cls_token", "blocks.1.temporal_attn.qkv.weight", "blocks.3.mlp.fc2.weight"):
        assert state[key].std().item() == pytest.approx(0.02, rel=0.15), key


@pytest.mark.parametrize("attention", ["divided", "joint", "space"])
def test_positions_can_start_stronger(attention: str) -> None:
    state = tiny(dim=192, attention=attention, positions_std=0.3).state_dict()
    names = {key for key in state if key in ("pos_embed", "time_embed")}
    assert names == ({"pos_embed"} if attention == "space" else {"pos_embed", "time_embed"})
    assert all(state[name].std().item() == pytest.approx(0.3, rel=0.1) for name in names)


def test_epsilons_of_norms_are_the_official_ones() -> None:
    assert {m.eps for m in tiny(token=True).modules() if isinstance(m, nn.LayerNorm)} == {1e-6}


def test_drop_path_grows_from_block_to_block() -> None:
    assert [block.drop_path.p for block in tiny(drop_path=0.3).blocks] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert tiny().blocks[3].drop_path.p == pytest.approx(0.1)


def test_paths_over_time_are_dropped_before_their_last_layer() -> None:
    block = tiny().blocks[0].train()
    randomise(block)
    block.drop_path.p = 1 - 1e-9
    x = torch.randn(2, 1 + 4 * 6, 32)
    expected = x.clone()
    expected[:, 1:] += block.temporal_fc.bias
    torch.testing.assert_close(block(x, 4), expected)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_frames_are_mixed_unless_attention_is_over_space_only(attention: str) -> None:
    backbone = tiny(attention=attention, token=True, out_indices=(3,)).eval()
    randomise(backbone)
    x = clips(4, 64, 64)
    y = x.clone()
    y[:, :, 3] = 0
    (before,), (after,) = backbone(x).maps, backbone(y).maps
    assert torch.allclose(before[:, :, :3], after[:, :, :3], atol=1e-5) == (attention == "space")
    assert not torch.allclose(before[:, :, 3], after[:, :, 3], atol=1e-2)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_cells_of_maps_lie_where_they_were_seen(attention: str) -> None:
    backbone = tiny(attention=attention, out_indices=(0,), depth=1).eval()
    for p in backbone.blocks.parameters():
        nn.init.zeros_(p)  # a block passes on what it gets
    x = clips(5, 40, 64)
    patches = nn.functional.pad(x, (0, 0, 0, 8)).unfold(3, 16, 16).unfold(4, 16, 16)
    expected = torch.einsum("ncthwij,dcij->ndthw", patches, backbone.patch_embed.proj.weight)
    expected += backbone.patch_embed.proj.bias[:, None, None, None]
    rows = [0, 1, 2]  # the nearest of four to those of three
    expected += backbone.pos_embed[0, 1:].unflatten(0, (4, 4))[[int(r * 4 / 3) for r in rows]].permute(2, 0, 1)[:, None]
    torch.testing.assert_close(backbone(x).maps[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_positions_are_resized_alike_on_the_way_and_when_loaded(attention: str) -> None:
    small = tiny(attention=attention, token=True).eval()
    large = tiny(attention=attention, token=True, img_size=(96, 80), num_frames=6).eval()
    randomise(small)
    report = load_weights(large, small.state_dict(), verbose=False)
    time = {"backbone.time_embed": "(1, 4, 32) -> (1, 6, 32)"} if attention != "space" else {}
    assert report.resized == {"backbone.pos_embed": "(1, 17, 32) -> (1, 31, 32)", **time}
    torch.testing.assert_close(small(clips(6, 96, 80)).token, large(clips(6, 96, 80)).token)
    if attention != "space":
        assert torch.equal(large.time_embed[0], small.time_embed[0, [0, 0, 1, 2, 2, 3]])


def image_model(**options: Any) -> ViT:
    torch.manual_seed(0)
    backbone = ViT(**SMALL, pool="tok", gelu="exact", token=True, out_indices=(1, 3), **options).eval()
    randomise(backbone)
    return backbone


def still(x: Tensor, frames: int) -> Tensor:
    return x.unsqueeze(2).expand(-1, -1, frames, -1, -1)


def load_image_model(backbone: TimeSformer, state: dict[str, Tensor]) -> None:
    report = load_weights(backbone, state, verbose=False)
    assert report.missing == report.unexpected == []
    assert report.skipped == {}


# Over space and time at once, the class token meets itself once but each cell in every frame: only a clip of one frame
# gives what an image does.
@pytest.mark.parametrize(("attention", "frames"), [("divided", 5), ("space", 5), ("joint", 1)])
@pytest.mark.parametrize("layout", ["ours", "timm"])
def test_a_still_clip_is_seen_as_the_image_that_the_weights_are_of(attention: str, frames: int, layout: str) -> None:
    vit, backbone = image_model(), tiny(attention=attention, token=True, out_indices=(1, 3)).eval()
    state = vit.state_dict()
    if layout == "timm":  # whose class token has a position
        place = torch.randn(1, 1, 32)
        state["cls_token"] = state["cls_token"] - place
        state["pos_embed"] = torch.cat([place, state["pos_embed"]], dim=1)
    load_image_model(backbone, state)
    x = clips(64, 64)
    image, clip = vit(x), backbone(still(x, frames))
    torch.testing.assert_close(clip.token, image.token, rtol=1e-5, atol=1e-5)
    for a, b in zip(clip.maps, image.maps, strict=True):
        torch.testing.assert_close(a, still(b, frames), rtol=1e-5, atol=1e-5 * b.abs().max().item())


def test_joint_attention_sees_the_frames_of_a_still_clip_alike() -> None:
    backbone = tiny(attention="joint").eval()
    load_image_model(backbone, {k: v for k, v in image_model().state_dict().items() if not k.startswith("norm.")})
    (clip,) = backbone(still(clips(64, 64), 3)).maps
    torch.testing.assert_close(clip[:, :, :1].expand_as(clip), clip)


def test_attention_over_time_starts_as_a_copy_without_effect() -> None:
    vit, backbone = image_model(), tiny(token=True)
    randomise(backbone)
    report = load_weights(backbone, vit.state_dict(), verbose=False)
    for ours, theirs in zip(backbone.blocks, vit.blocks, strict=True):
        assert torch.equal(ours.temporal_attn.qkv.weight, theirs.attn.qkv.weight)
        assert torch.equal(ours.temporal_attn.proj.bias, theirs.attn.proj.bias)
        assert torch.equal(ours.temporal_norm1.weight, theirs.norm1.weight)
        assert not any(p.any() for p in ours.temporal_fc.parameters())
    assert not backbone.time_embed.any()
    assert {"backbone.time_embed", "backbone.blocks.0.temporal_attn.qkv.weight"} <= set(report.completed)


def test_an_image_model_of_another_size_or_shape_starts_it_too() -> None:
    for size, own, same in ((96, 64, False), ((96, 64), (96, 64), True)):
        backbone, vit = tiny(img_size=own, token=True).eval(), image_model()
        vit = ViT(**{**SMALL, "img_size": size}, pool="tok", gelu="exact", token=True).eval()
        load_image_model(backbone, vit.state_dict())
        x = clips(*(own if same else (96, 96)))
        assert torch.allclose(backbone(still(x, 2)).token, vit(x).token, atol=1e-5) == same


def test_own_weights_of_any_grid_are_not_taken_for_those_of_an_image_model() -> None:
    # 24 cells and a class token are as many as a square has.
    own = tiny(attention="space", img_size=(96, 64))
    assert own.from_images(own.state_dict())["pos_embed"].shape == (1, 25, 32)
    load_image_model(tiny(attention="space", img_size=(96, 64)), own.state_dict())


def test_weights_of_another_attention_are_refused() -> None:
    with pytest.raises(CheckpointError, match="temporal_norm1"):
        load_weights(tiny(), tiny(attention="joint").state_dict(), verbose=False)


def test_weights_of_jax_start_it_as_those_of_our_own_vit() -> None:
    options = {"dim": 192, "depth": 3, "num_heads": 3, "hidden": 768, "img_size": 64, "token": True}
    rng = np.random.default_rng(0)
    names = json.loads((GOLDEN / "bvvit_Ti16_tok_64.json").read_text())["keys"]
    names = {name.replace("*", str(i)): shape for name, shape in names.items() for i in range(3 if "*" in name else 1)}
    state = {k: torch.from_numpy(0.1 * rng.standard_normal(s, np.float32)) for k, s in names.items()}
    state = {k: v for k, v in state.items() if not k.startswith("head")}
    vit, backbone = ViT(**options, pool="tok").eval(), TimeSformer(**options, gelu="tanh").eval()
    load_weights(vit, state, verbose=False)
    load_image_model(backbone, state)
    x = clips(64, 64)
    torch.testing.assert_close(backbone(still(x, 3)).token, vit(x).token, rtol=1e-5, atol=1e-5)


def test_weights_of_timm_start_it() -> None:
    timm = pytest.importorskip("timm")
    vit = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3, num_classes=0).eval()
    randomise(vit)
    backbone = TimeSformer(dim=192, depth=3, num_heads=3, hidden=768, img_size=64, token=True).double().eval()
    load_image_model(backbone, vit.state_dict())
    x = clips(64, 64).double()
    torch.testing.assert_close(backbone(still(x, 3)).token, vit.double()(x))


def test_dense_tasks_build_nothing_after_the_blocks() -> None:
    assert not any(key.startswith("norm.") for key in tiny().state_dict())
    assert len(tiny(out_indices=(0, 1)).blocks) == 2


def test_frozen_blocks_and_stem_do_not_learn() -> None:
    frozen = {name for name, p in tiny(frozen_stages=2).named_parameters() if not p.requires_grad}
    assert {".".join(name.split(".")[:2]) for name in frozen} == {
        "pos_embed",
        "cls_token",
        "time_embed",
        "patch_embed.proj",
        "blocks.0",
        "blocks.1",
    }


def test_what_the_official_code_does_not_decay_is_named() -> None:
    backbone = tiny(token=True)
    exempt = {n for n, p in backbone.named_parameters() if p.ndim > 1 and n.endswith(backbone.no_weight_decay)}
    assert exempt == {"pos_embed", "cls_token", "time_embed"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "32 channels into 5 heads"),
        ({"attention": "divided_space_time"}, "'divided', 'joint', 'space', not 'divided_space_time'"),
        ({"gelu": "none"}, "'tanh', 'exact', not 'none'"),
        ({"num_frames": 0}, "num_frames of TimeSformer"),
        ({"frozen_stages": 5}, "frozen_stages"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**options)


def test_images_are_refused() -> None:
    with pytest.raises(ValueError, match="expected clips"):
        tiny()(torch.randn(1, 3, 64, 64))
