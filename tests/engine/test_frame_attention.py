"""Attention over the cells of frames: against attention computed by hand, for each way of attending."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densevit.engine.attention_maps import record_attention
from densevit.engine.frame_attention import frame_attention
from densevit.model import DenseModel
from densevit.registry import MODELS

PLAIN = {"dim": 24, "depth": 2, "num_heads": 2, "hidden": 48, "img_size": 32}
PYRAMID = {"dims": (8, 16), "num_heads": (1, 2), "depths": (1, 2), "img_size": 32}


def model_of(backbone: dict[str, Any]) -> DenseModel:
    torch.manual_seed(0)
    config = {"type": "DenseModel", "backbone": backbone, "head": {"type": "VideoHead", "num_classes": 3}}
    model: DenseModel = MODELS.build({**config, "precision": "fp32"}).eval()
    for parameter in model.parameters():  # sharper than it is at the start
        nn.init.normal_(parameter, std=0.5)
    return model


def weights_by_hand(model: DenseModel, x: Tensor, name: str) -> Tensor:
    """Return the weights ``(N, L, S)`` of a `SelfAttention`, a mean over heads, from what it was given."""
    layer = model.backbone.get_submodule(name)
    given: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    with torch.no_grad():
        model.network(x)
        hook.remove()
        q, k, _ = layer.qkv(given[0]).unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1).mean(dim=1)


@pytest.mark.parametrize("token", [True, False])
@pytest.mark.parametrize("attention", ["divided", "joint", "space"])
def test_timesformer_looks_at_the_cells_of_its_frames(attention: str, token: bool) -> None:
    model = model_of({"type": "TimeSformer", **PLAIN, "num_frames": 4, "attention": attention, "token": token})
    x = torch.randn(1, 3, 4, 32, 48)
    found = frame_attention(model, x)
    weights = weights_by_hand(model, x, "blocks.1.attn")
    rows = (weights[:, 0] if token else weights[:, 1:].mean(dim=1))[:, 1:]
    frames = 1 if attention == "joint" else 4
    assert found is not None
    assert torch.allclose(found, rows.reshape(4, 2, 3) / frames, atol=1e-6)
    assert 0.2 < found.sum() < 1


@pytest.mark.parametrize("pool", ["tok", "gap", "map"])
@pytest.mark.parametrize("temporal", ["mean", "transformer"])
def test_image_backbones_look_at_each_frame_as_much_as_the_clip_does(pool: str, temporal: str) -> None:
    options = {"temporal": temporal, "depth": 1, "num_heads": 2, "token": True}
    model = model_of({"type": "Framewise", "backbone": {"type": "ViT", **PLAIN, "pool": pool}, **options})
    x = torch.randn(1, 3, 5, 32, 48)
    found = frame_attention(model, x)
    if pool == "map":
        with record_attention(model.backbone, ["frames.attn_pool"]) as maps:
            model.network(x)
        cells = maps[0].weights.mean(dim=1)[:, 0]
    else:
        weights = weights_by_hand(model, x, "frames.blocks.1.attn")
        cells = weights[:, 0, 1:] if pool == "tok" else weights.mean(dim=1)
    frames = torch.full((5,), 1 / 5)
    if temporal == "transformer":
        frames = weights_by_hand(model, x, "temporal.blocks.0.attn")[0, 0, 1:]
        assert frames.std() > 0
    assert found is not None
    assert torch.allclose(found, frames[:, None, None] * cells.reshape(5, 2, 3), atol=1e-6)


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("frames", [8, 5])
def test_pooled_keys_of_clips_are_spread_over_the_frames_that_they_stand_for(class_token: bool, frames: int) -> None:
    model = model_of(
        {
            "type": "VideoMViT",
            **PYRAMID,
            "kv_stride": (1, 4, 4),
            "num_frames": 8,
            "token": True,
            "class_token": class_token,
        }
    )
    x = torch.randn(1, 3, frames, 32, 48)
    found = frame_attention(model, x)
    with record_attention(model.backbone) as maps:
        model.network(x)
    assert maps[-1].layer == "blocks.2.attn"
    weights = maps[-1].weights.mean(dim=1)[0]
    cells = (weights[0, 1:] if class_token else weights.mean(dim=0)).reshape(-(-frames // 2), 2, 3)
    assert found is not None
    assert found.shape == (frames, 2, 3), "4 x 6 cells, pooled by 2"
    assert torch.allclose(found[0], found[1])
    assert torch.allclose(found[:2].sum(dim=0), cells[0])
    assert torch.allclose(found[-1], cells[-1] / (2 - frames % 2))
    assert found.sum().item() == pytest.approx(cells.sum().item(), rel=1e-5)


def test_an_image_backbone_of_pooled_keys_has_their_cells() -> None:
    model = model_of({"type": "Framewise", "backbone": {"type": "MViT", **PYRAMID, "kv_stride": (8, 8)}, "token": True})
    x = torch.randn(1, 3, 3, 32, 64)
    found = frame_attention(model, x)
    with record_attention(model.backbone) as maps:
        model.network(x)
    assert found is not None
    assert torch.allclose(found, maps[-1].weights.mean(dim=(1, 2)).reshape(3, 1, 2) / 3)


def test_what_attends_in_windows_or_not_at_all_has_no_picture() -> None:
    images = [
        {"type": "MViT", "dims": (8,), "num_heads": (1,), "depths": (1,), "window": (4, 4), "img_size": 32},
        {"type": "xcit_nano_12_p16"},
        {"type": "mobilevit_xxs"},
    ]
    for image in images:
        model = model_of({"type": "Framewise", "backbone": image, "token": True})
        assert frame_attention(model, torch.randn(1, 3, 2, 64, 64)) is None, image["type"]


def test_only_the_layers_that_are_asked_for_are_recorded() -> None:
    model = model_of({"type": "TimeSformer", **PLAIN, "num_frames": 2, "token": True})
    with record_attention(model.backbone, ["blocks.0.temporal_attn", "blocks.1.attn"]) as maps:
        model.network(torch.randn(1, 3, 2, 32, 32))
    assert [found.layer for found in maps] == ["blocks.0.temporal_attn", "blocks.1.attn"]
