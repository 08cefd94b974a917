"""MViTv2 for detection: which blocks attend in windows, what a window sees, and weights of other layouts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densevit.backbones import MViT, VideoMViT
from densevit.errors import ConfigError
from densevit.layers import PoolingAttention
from densevit.necks import FPN
from densevit.registry import BACKBONES
from densevit.weights import load_weights

KEYS = Path(__file__).parents[3] / "shared" / "oracle" / "keys"
# Parameters of the official models; of L nothing is recorded.
SIZES = {"mvitv2_t_window": 23_405_664, "mvitv2_s_window": 34_102_560, "mvitv2_b_window": 50_705_088}
DROP_PATH = {"mvitv2_t_window": 0.2, "mvitv2_s_window": 0.2, "mvitv2_b_window": 0.4, "mvitv2_l_window": 0.5}
LAST_BLOCKS = {
    "mvitv2_t_window": (0, 2, 7, 9),
    "mvitv2_s_window": (0, 2, 13, 15),
    "mvitv2_b_window": (1, 4, 20, 23),
    "mvitv2_l_window": (1, 7, 43, 47),
}


def tiny(**options: Any) -> MViT:
    torch.manual_seed(0)
    small = {"dims": (16, 32, 64, 128), "depths": (1, 2, 2, 2), "img_size": 64, "window": (8, 8)}
    return MViT(**{**small, "drop_path": 0.0, **options})


def meta(name: str) -> MViT:
    with torch.device("meta"):
        return BACKBONES.build({"type": name})


def attentions(backbone: MViT) -> list[PoolingAttention]:
    return [block.attn for block in backbone.blocks]


@pytest.mark.parametrize("name", SIZES)
def test_tensors_have_the_official_names_and_shapes(name: str) -> None:
    ours = meta(name).state_dict()
    assert sum(v.numel() for v in ours.values()) == SIZES[name]
    path = KEYS / f"d2_mvitv2_{name.split('_')[1].upper()}_backbone.json"
    if not path.exists():
        pytest.skip("the lists of official names are not beside the repository")
    assert {k: list(v.shape) for k, v in ours.items()} == json.loads(path.read_text())


@pytest.mark.parametrize("name", LAST_BLOCKS)
def test_variants_see_everything_in_the_last_block_of_each_stage_but_the_first(name: str) -> None:
    backbone = meta(name)
    whole = [i for i, attn in enumerate(attentions(backbone)) if not attn.window]
    assert tuple(whole) == LAST_BLOCKS[name][1:]
    assert [m.p for n, m in backbone.named_modules() if n.endswith("drop_path")][-1] == DROP_PATH[name]


def test_windows_tables_and_strides_are_the_official_ones() -> None:
    found = [
        (a.window, a.strides["q"][0], a.strides["k"][0], len(a.rel_pos_h)) for a in attentions(meta("mvitv2_t_window"))
    ]
    assert found == [
        ((56, 56), 1, 4, 111),
        ((56, 56), 2, 2, 55),  # still the window of the stage before
        ((), 1, 4, 55),  # keys of the stage before
        ((28, 28), 2, 1, 55),
        ((14, 14), 1, 1, 27),
        ((14, 14), 1, 1, 27),
        ((14, 14), 1, 1, 27),
        ((), 1, 2, 27),
        ((14, 14), 2, 1, 27),
        ((), 1, 1, 13),
    ]


@pytest.mark.parametrize(("q_stride", "kv_stride"), [(1, 4), (2, 2), (1, 1), (2, 1)])
def test_each_window_attends_as_if_it_were_alone(q_stride: int, kv_stride: int) -> None:
    strides = {"q_stride": (q_stride,) * 2, "kv_stride": (kv_stride,) * 2}
    # With kernels of one cell, pooling reaches beyond no window.
    windowed = PoolingAttention(8, 16, 2, (1, 1), **strides, relative_grid=(8, 8), window=(8, 4)).double()
    whole = PoolingAttention(8, 16, 2, (1, 1), **strides, relative_grid=(8, 8)).double()
    whole.load_state_dict(windowed.state_dict())
    x = torch.randn(2, 16, 12, 8).double()
    tokens, grid = windowed(x.flatten(1, 2), (16, 12))
    assert tuple(grid) == (16 // q_stride, 12 // q_stride)
    out = tokens.unflatten(1, tuple(grid))
    h, w = 8 // q_stride, 4 // q_stride
    for i in range(2):
        for j in range(3):
            alone, _ = whole(x[:, 8 * i : 8 * i + 8, 4 * j : 4 * j + 4].flatten(1, 2), (8, 4))
            torch.testing.assert_close(out[:, h * i : h * (i + 1), w * j : w * (j + 1)].flatten(1, 2), alone)


def test_cells_beyond_the_image_are_keys_and_values_of_zero() -> None:
    attn = PoolingAttention(8, 8, 1, (1, 1), (1, 1), (1, 1), residual=False, window=(2, 2)).double()
    x = torch.randn(1, 3, 8).double()  # the second of two windows is a cell and three zeros
    k, v = nn.functional.linear(x[0, 2], attn.qkv.weight, attn.qkv.bias).chunk(3)[1:]
    q = nn.functional.linear(x[0, 2], attn.qkv.weight[:8], attn.qkv.bias[:8])
    k, v = (
        norm(t * pool.weight.flatten())
        for t, pool, norm in ((k, attn.pool_k, attn.norm_k), (v, attn.pool_v, attn.norm_v))
    )
    weight = torch.exp(q @ k / 8**0.5)
    out, _ = attn(x, (1, 3))
    torch.testing.assert_close(out[0, 2], attn.proj(v * weight / (weight + 3)))


def test_far_cells_meet_in_the_last_block_of_the_second_stage() -> None:
    backbone, x = tiny(out_indices=(0, 1)).eval(), torch.randn(1, 3, 64, 128)
    other = x.clone()
    other[..., 96:] = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        (first, second), (other_first, other_second) = backbone(x).maps, backbone(other).maps
    assert torch.equal(first[..., :16], other_first[..., :16])  # two windows of 8 cells, or 32 pixels
    assert (second[..., 0] != other_second[..., 0]).any()


@pytest.mark.parametrize("size", [(64, 64), (33, 96), (97, 130)])
def test_maps_have_a_cell_for_every_started_stride(size: tuple[int, int]) -> None:
    maps = tiny().eval()(torch.randn(1, 3, *size)).maps
    assert [m.shape[2:] for m in maps] == [tuple(-(-n // s) for n in size) for s in (4, 8, 16, 32)]


def test_videos_have_windows_in_time_too() -> None:
    small: dict[str, Any] = {"dims": (16, 32, 64, 128), "depths": (1, 2, 2, 2), "img_size": 64, "num_frames": 8}
    backbone = VideoMViT(**small, kv_stride=(1, 4, 4), window=(2, 8, 8), class_token=False).eval()
    assert [a.window for a in attentions(backbone)][:4] == [(2, 8, 8), (2, 8, 8), (), (2, 4, 4)]
    assert attentions(backbone)[2].strides["k"] == (1, 4, 4)
    assert backbone(torch.randn(1, 3, 6, 64, 80)).maps[0].shape == (1, 16, 3, 16, 20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": (12, 12)}, r"strides of \(2, 2\) do not divide a window of \(3, 3\) cells"),
        ({"window": (8,)}, "and window as many or none"),
        ({"window": (8, 8), "class_token": True}, "a class token lies in no window"),
    ],
)
def test_impossible_windows_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**options)


@pytest.mark.parametrize(("img_size", "resized"), [(224, 0), (256, 20)])
def test_weights_of_a_classifier_start_a_detector(img_size: int, resized: int) -> None:
    source = BACKBONES.build({"type": "mvitv2_t", "token": True}).state_dict()
    backbone = BACKBONES.build({"type": "mvitv2_t_window", "img_size": img_size})
    report = load_weights(backbone, {**source, "head.projection.weight": torch.ones(1000, 768)}, verbose=False)
    assert len(report.resized) == resized
    assert report.skipped == {}
    assert {name.split(".")[1] for name in report.missing} == {f"scale{i}_norm" for i in range(2, 6)}
    state = backbone.state_dict()
    assert all(torch.equal(state[key], value) for key, value in source.items() if key in state and not resized)


class Detector(nn.Module):
    """The parts of a model that have a neck, as weights are loaded into it."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.backbone = tiny()
        self.neck = FPN(self.backbone.specs, out_channels=8, **options)


def detectron2(state: dict[str, Tensor], first: int, levels: int) -> dict[str, Tensor]:
    """Return what detectron2 would have saved of a pyramid that reads ``levels`` levels from the ``first`` on."""
    names = {f"neck.lateral_convs.{i}.conv": f"backbone.fpn_lateral{first + i}" for i in range(levels)}
    names |= {f"neck.fpn_convs.{i}.conv": f"backbone.fpn_output{first + i}" for i in range(levels)}
    names |= {f"neck.fpn_convs.{i}.conv": f"backbone.top_block.p{first + i}" for i in range(levels, 5)}
    saved = {"pixel_mean": torch.zeros(3)}
    for key, value in state.items():
        start, _, end = key.rpartition(".")
        saved[f"{names[start]}.{end}" if start in names else key.replace("backbone.", "backbone.bottom_up.")] = value
    return saved


@pytest.mark.parametrize(
    ("first", "options"), [(2, {"num_outs": 5}), (3, {"num_outs": 5, "start_level": 1, "extra": "on_output"})]
)
def test_files_of_detectron2_are_loaded_with_their_neck(first: int, options: dict[str, Any]) -> None:
    source, model = Detector(**options), Detector(**options)
    for p in source.parameters():
        nn.init.normal_(p)
    saved = detectron2(source.state_dict(), first, levels=6 - first)
    report = load_weights(model, {"model": saved}, verbose=False)
    assert report.missing == []
    assert report.skipped == report.resized == {}
    assert report.unexpected == ["pixel_mean"]
    for key, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key
    bare = load_weights(tiny(), saved, verbose=False)
    assert bare.missing == []
    assert {name.split(".")[0] for name in bare.unexpected} == {"pixel_mean", "neck"}
