"""MViT of timm and of torchvision with the same weights: same features, same gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.video import mvit_v1_b, mvit_v2_s
from torchvision.models.video.mvit import MSBlockConfig
from torchvision.models.video.mvit import MViT as TorchvisionMViT

from densevit.backbones import MViT
from densevit.registry import BACKBONES
from densevit.weights import load_weights


def randomise(model: nn.Module) -> None:
    torch.manual_seed(0)
    for p in model.parameters():
        nn.init.normal_(p, mean=float(p.ndim == 1), std=0.1)


def load(ours: MViT, state: dict[str, Tensor]) -> None:
    report = load_weights(ours, state, verbose=False)
    assert report.missing == []
    assert report.resized == report.skipped == {}
    assert all(name.startswith("head.") for name in report.unexpected)


def assert_equal(ours: MViT, theirs: nn.Module, their_token: Tensor, x: Tensor, their_keys: Sequence[str]) -> None:
    """Compare the token and the gradients of what ours calls as the keys of theirs are translated."""
    token = ours(x).token
    assert token is not None
    torch.testing.assert_close(token, their_token)
    weight = torch.randn_like(token)
    (token * weight).sum().backward()
    (their_token * weight).sum().backward()
    theirs_by_name = {k: theirs.get_parameter(k).grad for k in their_keys}
    translated = ours.translate({k: v for k, v in theirs_by_name.items() if v is not None})
    checked = 0
    for name, p in ours.named_parameters():
        if name in translated:
            torch.testing.assert_close(translated[name], p.grad, msg=name)
            checked += 1
    assert checked >= len(ours.blocks) * 16


@pytest.fixture(params=[True, False], ids=["widen in attention", "widen in mlp"])
def pair(request: pytest.FixtureRequest) -> tuple[MViT, Any]:
    mvitv2 = pytest.importorskip("timm.models.mvitv2")
    cfg = mvitv2.MultiScaleVitCfg(depths=(1, 2, 1, 2), embed_dim=16, num_heads=1, expand_attn=request.param)
    theirs = mvitv2.MultiScaleVit(cfg, img_size=(64, 64), num_classes=3).double()
    randomise(theirs)
    ours = MViT(
        dims=(16, 32, 64, 128),
        depths=(1, 2, 1, 2),
        img_size=64,
        token=True,
        drop_path=0.0,
        widen_in_mlp=not request.param,
    ).double()
    load(ours, theirs.state_dict())
    return ours, theirs


def test_features_and_gradients_equal_those_of_timm(pair: tuple[MViT, Any]) -> None:
    ours, theirs = pair
    x = torch.randn(2, 3, 64, 64).double()
    keys = [k for k, _ in theirs.named_parameters() if not k.startswith("head.")]
    assert_equal(ours, theirs, theirs.forward_head(theirs.forward_features(x), pre_logits=True), x, keys)


def test_maps_before_the_norm_equal_those_of_timm(pair: tuple[MViT, Any]) -> None:
    _, theirs = pair
    widen_in_mlp = not theirs.expand_attn
    ours = MViT(
        dims=(16, 32, 64, 128), depths=(1, 2, 1, 2), img_size=64, drop_path=0.0, widen_in_mlp=widen_in_mlp
    ).double()
    load_weights(ours, theirs.state_dict(), verbose=False)
    x = torch.randn(2, 3, 64, 64).double()
    expected = theirs.forward_intermediates(x, norm=False, intermediates_only=True)
    for ours_map, spec, their_map in zip(ours(x).maps, ours.specs, expected, strict=True):
        norm = nn.functional.layer_norm(their_map.movedim(1, -1), (spec.channels,), eps=1e-6).movedim(-1, 1)
        torch.testing.assert_close(ours_map, norm)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "timm_name"), [("mvitv2_t", "mvitv2_tiny"), ("mvitv2_s", "mvitv2_small")])
def test_variants_equal_those_of_timm(name: str, timm_name: str) -> None:
    timm = pytest.importorskip("timm")
    theirs = timm.create_model(timm_name, num_classes=3).eval()
    ours = BACKBONES.build({"type": name, "token": True}).eval()
    load(ours, theirs.state_dict())
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = theirs.forward_head(theirs.forward_features(x), pre_logits=True)
        torch.testing.assert_close(ours(x).token, expected, rtol=1e-4, atol=1e-4)


def torchvision_blocks(kernel: list[int], q_stride: list[int], kv_strides: list[list[int]], v1: bool) -> list[Any]:
    """Four blocks of widths 16 to 128, one a stage, as version 1 or 2 widens and pools."""
    widths = [(16, 32), (32, 64), (64, 128), (128, 128)] if v1 else [(16, 16), (16, 32), (32, 64), (64, 128)]
    blocks = []
    for i, (before, after) in enumerate(widths):
        stride = q_stride if i else [1, 1, 1]
        pooled = not v1 or i > 0
        blocks.append(
            MSBlockConfig(
                num_heads=1 << i,
                input_channels=before,
                output_channels=after,
                kernel_q=kernel if pooled else [],
                kernel_kv=kernel,
                stride_q=stride if pooled else [],
                stride_kv=kv_strides[i],
            )
        )
    return blocks


def test_version_1_equals_that_of_torchvision() -> None:
    blocks = torchvision_blocks([1, 3, 3], [1, 2, 2], [[1, 4, 4], [1, 2, 2], [1, 1, 1], [1, 1, 1]], v1=True)
    theirs = TorchvisionMViT(
        spatial_size=(64, 64),
        temporal_size=1,
        block_setting=blocks,
        residual_pool=False,
        residual_with_cls_embed=False,
        rel_pos_embed=False,
        proj_after_attn=False,
        dropout=0.0,
        num_classes=128,
        patch_embed_kernel=(1, 7, 7),
        patch_embed_stride=(1, 4, 4),
        patch_embed_padding=(0, 3, 3),
    ).double()
    randomise(theirs)
    theirs.head = nn.Identity()
    ours = MViT(
        dims=(16, 32, 64, 128),
        depths=(1, 1, 1, 1),
        img_size=64,
        token=True,
        drop_path=0.0,
        widen_in_mlp=True,
        class_token=True,
        absolute_positions=True,
        relative_positions=False,
        residual_pooling=False,
    ).double()
    # Their positions are separable; those of one frame add up.
    state = theirs.state_dict()
    names = ("class_pos", "spatial_pos", "temporal_pos")
    first, space, time = (state.pop(f"pos_encoding.{name}") for name in names)
    load(ours, {**state, "pos_embed": torch.cat([first[None], space + time])[None]})
    x = torch.randn(2, 3, 64, 64).double()
    keys = [k for k, _ in theirs.named_parameters()]
    assert_equal(ours, theirs, theirs(x.unsqueeze(2)), x, keys)


def torchvision_clips(v1: bool) -> nn.Module:
    """Return a small model of torchvision for clips of 8 frames of 64 pixels, without its classifier."""
    strides = [[1, 8, 8], [1, 4, 4], [1, 2, 2], [1, 1, 1]]
    theirs = TorchvisionMViT(
        spatial_size=(64, 64),
        temporal_size=8,
        block_setting=torchvision_blocks([3, 3, 3], [1, 2, 2], strides, v1),
        residual_pool=not v1,
        residual_with_cls_embed=False,
        rel_pos_embed=not v1,
        proj_after_attn=not v1,
        dropout=0.0,
        num_classes=128,
    ).double()
    randomise(theirs)
    theirs.head = nn.Identity()
    return theirs


@pytest.mark.parametrize("v1", [True, False], ids=["version 1", "version 2"])
def test_clips_give_the_features_and_gradients_of_torchvision(v1: bool) -> None:
    theirs = torchvision_clips(v1)
    name = "mvitv1_b_16x4" if v1 else "mvitv2_s_16x4"
    small = {"dims": (16, 32, 64, 128), "depths": (1, 1, 1, 1), "img_size": 64, "num_frames": 8}
    ours = BACKBONES.build({"type": name, **small, "token": True, "drop_path": 0.0}).double()
    load(ours, theirs.state_dict())
    x = torch.randn(2, 3, 8, 64, 64).double()
    assert_equal(ours, theirs, theirs(x), x, [k for k, _ in theirs.named_parameters()])
    names = {"cls_token", "patch_embed.proj.weight"}
    names |= {"pos_embed_class", "pos_embed_spatial", "pos_embed_temporal"} if v1 else set()
    for key in names:  # of no block
        assert ours.get_parameter(key).grad.any(), key


@pytest.mark.slow
@pytest.mark.parametrize(("name", "theirs"), [("mvitv1_b_16x4", mvit_v1_b), ("mvitv2_s_16x4", mvit_v2_s)])
def test_variants_of_clips_equal_those_of_torchvision(name: str, theirs: Callable[[], nn.Module]) -> None:
    official = theirs().eval()
    randomise(official)
    official.head = nn.Identity()
    ours = BACKBONES.build({"type": name, "token": True}).eval()
    load(ours, official.state_dict())
    x = torch.randn(1, 3, 16, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(x).token, official(x), rtol=1e-4, atol=1e-4)
