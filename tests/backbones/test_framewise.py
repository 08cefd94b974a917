"""Backbones of images on clips: what they give is that of the image model, and the rest is about time."""

import copy
import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor

from densevit.backbones import Framewise
from densevit.errors import CheckpointError, ConfigError
from densevit.features import Backbone, Features, FeatureSpec, expected_shape
from densevit.layers import DropPath
from densevit.registry import BACKBONES
from densevit.weights import load_weights

IMAGES: dict[str, dict[str, Any]] = {
    "mit_b0": {"type": "mit_b0"},
    "vit_ti16": {"type": "vit_ti16", "depth": 4},
    "xcit_nano_12_p16": {"type": "xcit_nano_12_p16", "depth": 4},
    "mobilevit_xxs": {"type": "mobilevit_xxs"},
    "mvitv2_t": {"type": "mvitv2_t", "depths": (1, 1, 1, 1)},
    "timm": {"type": "timm", "name": "resnet18", "options": {"zero_init_last": False}},
}
# The smallest of each family that is not among those above.
OTHERS = ["cct_2_3x2_32", "cmt_ti", "convmixer_256_8", "deepvit_16b", "dhvt_tiny_cifar_patch4", "mixer_s32"]
TEMPORAL = {"temporal": "transformer", "depth": 2, "num_heads": 2, "num_frames": 4}


class TwoMaps(Backbone):
    """A backbone of images that gives no token."""

    divisor = (2, 2)

    def __init__(self, in_channels: int = 3, out_indices: tuple[int, ...] = (0, 1)) -> None:
        super().__init__()
        self.out_indices = out_indices
        self.specs = tuple(FeatureSpec(4 + 2 * i, (1 + i, 1 + i)) for i in out_indices)
        self.convs = torch.nn.ModuleList(torch.nn.Conv2d(in_channels, 4 + 2 * i, 1, 1 + i) for i in out_indices)

    def forward(self, x: Tensor) -> Features:
        return Features(tuple(conv(x) for conv in self.convs))


@pytest.fixture(autouse=True)
def _two_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    BACKBONES.names()  # imports all others
    monkeypatch.setitem(BACKBONES.module_dict, "TwoMaps", TwoMaps)


@pytest.fixture(params=IMAGES)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return image_config(request.param)


def image_config(name: str) -> dict[str, Any]:
    if name == "timm" and importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    return IMAGES.get(name, {"type": name})


def build(config: dict[str, Any], **options: Any) -> Framewise:
    torch.manual_seed(0)
    return BACKBONES.build({"type": "Framewise", "backbone": config, **options})


def pair(config: dict[str, Any], **options: Any) -> tuple[Backbone, Framewise]:
    """Return the image backbone and the same one for clips, in evaluation mode."""
    wrapped = build(config, **options).eval()
    given = {key: options[key] for key in ("token", "out_indices") if key in options}
    image: Backbone = BACKBONES.build({**config, **given})
    image.load_state_dict(wrapped.frames.state_dict())
    return image.eval(), wrapped


def clips(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def loss(features: Features) -> Tensor:
    parts = [*features.maps, *([] if features.token is None else [features.token])]
    return sum((t.square().mean() for t in parts), torch.zeros(()))


def assert_close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@torch.no_grad()
def test_a_clip_of_equal_frames_gives_the_features_of_the_image(config: dict[str, Any]) -> None:
    x = clips(2, 3, 64, 96)
    clip = x[:, :, None].expand(-1, -1, 5, -1, -1)
    image, wrapped = pair(config)
    expected, got = image(x), wrapped(clip)
    assert [tuple(m.shape) for m in got.maps] == [expected_shape(s, 2, (5, 64, 96)) for s in wrapped.specs]
    for a, b in zip(got.maps, expected.maps, strict=True):
        assert_close(a, b[:, :, None].expand_as(a))
    assert got.token is None
    image, wrapped = pair(config, token=True)
    expected, got = image(x), wrapped(clip)
    assert got.maps == wrapped.specs == ()
    assert got.token is not None
    assert got.token.shape == (2, wrapped.token_channels)
    assert_close(got.token, expected.token)


@torch.no_grad()
def test_maps_are_those_of_the_frames_in_their_order() -> None:
    x = clips(2, 3, 4, 64, 96)
    image, wrapped = pair(IMAGES["mit_b0"], out_indices=(1, 3))
    assert [spec.stride for spec in wrapped.specs] == [(1, 8, 8), (1, 32, 32)]
    assert wrapped.divisor == (1, 32, 32)
    maps = wrapped(x).maps
    for t in range(4):
        for got, expected in zip(maps, image(x[:, :, t]).maps, strict=True):
            assert_close(got[:, :, t], expected)


@torch.no_grad()
def test_the_order_of_frames_matters_to_the_transformer_only() -> None:
    x = clips(2, 3, 4, 64, 64)
    for options, differs in (({}, False), (TEMPORAL, True)):
        wrapped = build(IMAGES["vit_ti16"], token=True, **options).eval()
        forwards, backwards = wrapped(x).token, wrapped(x.flip(2)).token
        assert torch.allclose(forwards, backwards, atol=1e-5) != differs


@torch.no_grad()
def test_every_frame_reaches_the_token() -> None:
    x = clips(1, 3, 4, 64, 64)
    for options in ({}, TEMPORAL):
        wrapped = build(IMAGES["vit_ti16"], token=True, **options).eval()
        plain = wrapped(x).token
        for t in range(4):
            other = x.clone()
            other[:, :, t] += torch.randn_like(other[:, :, t])
            assert (wrapped(other).token - plain).abs().max() > 1e-4


@pytest.mark.parametrize("frames", [1, 2, 4, 7])
def test_the_transformer_takes_clips_of_any_length(frames: int) -> None:
    wrapped = build(IMAGES["vit_ti16"], token=True, **TEMPORAL).eval()
    with torch.no_grad():
        assert wrapped(clips(2, 3, frames, 32, 32)).token.shape == (2, 192)
        torch.nn.init.constant_(wrapped.temporal.time_embed, 0.5)
        torch.testing.assert_close(wrapped.temporal.positions(frames), torch.full((1, frames, 192), 0.5))


@pytest.mark.parametrize(
    "options",
    [{}, {"token": True}, {"token": True, **TEMPORAL}, {"token": True, "out_indices": (0, 1), **TEMPORAL}],
    ids=["maps", "mean", "transformer", "transformer and maps"],
)
def test_every_parameter_gets_a_gradient_and_is_in_one_layer_group(
    config: dict[str, Any], options: dict[str, Any]
) -> None:
    settings = {**config, **({"drop_path": 0.0} if config["type"] != "timm" else {})}
    wrapped = build(settings, **options).train()
    loss(wrapped(clips(2, 3, 3, 64, 64))).backward()
    names = [name for name, _ in wrapped.named_parameters()]
    assert [n for n, p in wrapped.named_parameters() if p.grad is None or not p.grad.any()] == []
    groups = wrapped.layer_groups()
    for name in names:
        assert sum(name.startswith(group) for group in groups) == 1, name
    assert all(any(name.startswith(group) for name in names) for group in groups)
    assert any(name.startswith("temporal.") for name in names) == ("temporal" in options)


def test_a_backbone_without_a_token_gives_the_mean_of_its_last_map() -> None:
    x = clips(2, 3, 3, 8, 10)
    wrapped = build({"type": "TwoMaps"}, token=True)
    assert wrapped.token_channels == 6
    assert len(wrapped.frames.convs) == 1  # only the last map is computed
    features = wrapped(x)
    assert features.maps == wrapped.specs == ()
    maps = [wrapped.frames(x[:, :, t]).maps[0] for t in range(3)]
    assert_close(features.token, torch.stack(maps).mean(dim=(0, 3, 4)))
    both = build({"type": "TwoMaps"}, token=True, out_indices=(0, 1))
    assert [tuple(m.shape) for m in both(x).maps] == [(2, 4, 3, 8, 10), (2, 6, 3, 4, 5)]
    assert_close(both(x).token, both(x).maps[1].mean(dim=(2, 3, 4)))


def test_options_reach_the_image_backbone() -> None:
    wrapped = build({"type": "mit_b0", "frozen_stages": 1, "drop_path": 0.3, "in_channels": 5}).train()
    frozen = [n for n, p in wrapped.named_parameters() if not p.requires_grad]
    assert frozen
    assert all(name.startswith(("frames.patch_embed1.", "frames.block1.", "frames.norm1.")) for name in frozen)
    assert not wrapped.frames.norm1.training
    assert max(m.p for m in wrapped.modules() if isinstance(m, DropPath)) == pytest.approx(0.3)
    assert len(wrapped(clips(1, 5, 2, 64, 64)).maps) == 4


def test_common_options_of_the_factorised_encoder_reach_its_parts() -> None:
    options = {"in_channels": 5, "drop_path": 0.3, "frozen_stages": 2, "token": True, "backbone": {"depth": 4}}
    backbone = BACKBONES.build({"type": "factorised_vit_ti16", **options})
    frozen = {n.split(".")[2] for n, p in backbone.named_parameters() if not p.requires_grad and ".blocks." in n}
    assert frozen == {"0", "1"}
    assert backbone.frames.patch_embed.proj.in_channels == 5
    for part in (backbone.frames, backbone.temporal):
        assert max(m.p for m in part.modules() if isinstance(m, DropPath)) == pytest.approx(0.3)


@pytest.mark.parametrize("name", ["mit_b0", "mobilevit_xxs"])
def test_recomputed_activations_give_the_same_gradients_and_statistics(name: str) -> None:
    x, runs = clips(2, 3, 2, 64, 64), []
    start = build(IMAGES[name], token=True, **TEMPORAL).train()
    for checkpointing in (False, True):
        wrapped = copy.deepcopy(start)
        wrapped.checkpointing = checkpointing
        assert wrapped.frames.checkpointing == wrapped.checkpointing == checkpointing
        torch.manual_seed(5)
        loss(wrapped(x)).backward()
        runs.append({n: p.grad for n, p in wrapped.named_parameters()} | dict(wrapped.named_buffers()))
    for key, kept in runs[0].items():
        torch.testing.assert_close(runs[1][key], kept, rtol=1e-5, atol=1e-6, msg=key)


def test_recomputation_reaches_a_backbone_that_has_its_own_way() -> None:
    wrapped = build(image_config("timm"))
    wrapped.checkpointing = True
    assert wrapped.frames.model.grad_checkpointing


def test_batch_norms_see_all_frames_of_a_batch() -> None:
    x = clips(2, 3, 3, 64, 64)
    image, wrapped = pair(IMAGES["mobilevit_xxs"])
    image.train()
    wrapped.train()
    torch.manual_seed(2)
    maps = image(x.transpose(1, 2).flatten(0, 1)).maps
    torch.manual_seed(2)
    got = wrapped(x).maps
    assert_close(got[0], maps[0].unflatten(0, (2, 3)).transpose(1, 2))
    for (name, a), (_, b) in zip(wrapped.frames.named_buffers(), image.named_buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


@pytest.mark.parametrize("temporal", [{}, TEMPORAL], ids=["mean", "transformer"])
def test_weights_of_an_image_model_are_loaded_as_they_are(config: dict[str, Any], temporal: dict[str, Any]) -> None:
    torch.manual_seed(3)
    image: Backbone = BACKBONES.build({**config, "token": True})
    wrapped = build(config, token=True, **temporal)
    before = {name: value.clone() for name, value in wrapped.state_dict().items() if name.startswith("temporal.")}
    state = {f"backbone.{name}": value for name, value in image.state_dict().items()}
    report = load_weights(wrapped, {**state, "head.fc.weight": torch.zeros(7, 3)}, verbose=False)
    for name, value in image.state_dict().items():
        torch.testing.assert_close(wrapped.frames.state_dict()[name], value)
    assert sorted(report.missing) == sorted(f"backbone.{name}" for name in before)
    assert report.skipped == {}
    assert all(torch.equal(wrapped.state_dict()[name], value) for name, value in before.items())


def test_weights_in_another_layout_are_loaded_and_positions_resized() -> None:
    image: Backbone = BACKBONES.build({**IMAGES["vit_ti16"], "token": True, "pool": "tok", "img_size": 96})
    state = dict(image.state_dict())
    state["pos_embed"] = torch.cat([torch.zeros(1, 1, 192), state["pos_embed"]], dim=1)  # as in timm's files
    state |= {"head.weight": torch.zeros(9, 192), "head.bias": torch.zeros(9)}
    wrapped = build({**IMAGES["vit_ti16"], "pool": "tok", "img_size": 64}, token=True, **TEMPORAL)
    report = load_weights(wrapped, state, verbose=False)
    assert list(report.resized) == ["backbone.frames.pos_embed"]
    assert all("temporal." in name for name in report.missing)
    torch.testing.assert_close(wrapped.frames.blocks[1].mlp.fc1.weight, image.blocks[1].mlp.fc1.weight)


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "mobilenetv3_small_050"])
def test_files_of_timm_are_loaded(name: str) -> None:
    timm = pytest.importorskip("timm")
    theirs = timm.create_model(name)
    wrapped = build({"type": "timm", "name": name}, token=True)
    report = load_weights(wrapped, theirs.state_dict(), verbose=False)
    assert report.missing == []
    assert len(report.unexpected) == 2  # the classifier


def test_weights_of_official_layouts_that_name_the_classifier_as_a_part_are_loaded() -> None:
    image: Backbone = BACKBONES.build({"type": "cct_2_3x2_32", "token": True})
    official = {(k if k.startswith("tokenizer.") else f"classifier.{k}"): v for k, v in image.state_dict().items()}
    plain, wrapped = (
        BACKBONES.build({"type": "cct_2_3x2_32", "token": True}),
        build({"type": "cct_2_3x2_32"}, token=True),
    )
    expected = load_weights(plain, official, verbose=False)
    assert expected.missing == []
    report = load_weights(wrapped, official, verbose=False)
    assert report.missing == []
    assert len(report.matched) == len(expected.matched)


def test_own_checkpoints_are_loaded_and_positions_in_time_resized() -> None:
    settings = {"token": True, **TEMPORAL}
    torch.manual_seed(4)
    trained = build(IMAGES["vit_ti16"], **settings)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.1)
    wrapped = build(IMAGES["vit_ti16"], **settings)
    report = load_weights(wrapped, trained.state_dict(), verbose=False)
    assert report.missing == report.unexpected == []
    assert report.resized == {}
    torch.testing.assert_close(wrapped.state_dict(), trained.state_dict())
    longer = build(IMAGES["vit_ti16"], **{**settings, "num_frames": 8})
    report = load_weights(longer, trained.state_dict(), verbose=False)
    assert list(report.resized) == ["backbone.temporal.time_embed"]
    # Halfway between two old frames lie two new ones, a quarter of the way from either.
    old, new = trained.temporal.time_embed[0], longer.temporal.time_embed[0]
    torch.testing.assert_close(new[1], 0.75 * old[0] + 0.25 * old[1])


def test_weights_of_another_image_model_are_refused() -> None:
    other = BACKBONES.build({"type": "xcit_nano_12_p16"}).state_dict()
    with pytest.raises(CheckpointError, match=r"lacks .* Framewise"):
        load_weights(build(IMAGES["mit_b0"], token=True, **TEMPORAL), other, verbose=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": {"type": "mit_b0", "token": True}}, "token of Framewise: give them to it"),
        ({"backbone": {"type": "mit_b9"}}, "Did you mean"),
        ({"backbone": {"type": "mit_b0", "dropout": 1}}, "takes no 'dropout'"),
        ({"backbone": {"type": "Framewise", "backbone": {"type": "mit_b0"}}}, "wants a backbone of images"),
        ({"temporal": "median"}, "temporal of Framewise is one of"),
        ({"temporal": "transformer", "token": True, "num_heads": 7}, "num_heads must divide"),
        ({"temporal": "transformer", "num_frames": 0}, "positive"),
        ({"out_indices": (4,)}, "out_indices of MiT"),
        ({"out_indices": ()}, "token=True"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BACKBONES.build({"type": "Framewise", "backbone": {"type": "mit_b0"}, **options})


def test_images_are_refused() -> None:
    with pytest.raises(ValueError, match="expected clips"):
        build({"type": "TwoMaps"})(clips(2, 3, 8, 8))


def test_the_factorised_encoder_has_the_size_of_the_paper() -> None:
    with torch.device("meta"):
        backbone = BACKBONES.build({"type": "factorised_vit_b16", "token": True})
    count = sum(p.numel() for p in backbone.parameters())
    # Table 4 of the paper: 115.1M with the classifier of 400 classes, and patches that are two frames deep.
    assert (count + 400 * 769 + 3 * 16 * 16 * 768) / 1e6 == pytest.approx(115.1, abs=0.05)
    assert len(backbone.temporal.blocks) == 4
    assert backbone.temporal.blocks[0].attn.num_heads == 12


@pytest.mark.slow
@pytest.mark.parametrize("name", [*IMAGES, *OTHERS])
def test_every_image_backbone_can_be_wrapped(name: str) -> None:
    config = image_config(name)
    for options in ({}, {"token": True}, {"token": True, **TEMPORAL}):
        wrapped = build(config, **options).train()
        size = [max(2 * d, 32) for d in wrapped.divisor[1:]]
        features = wrapped(clips(2, 3, 3, *size))
        assert [tuple(m.shape) for m in features.maps] == [expected_shape(s, 2, (3, *size)) for s in wrapped.specs]
        assert (features.token is None) == ("token" not in options)
        loss(features).backward()
        image: Backbone = BACKBONES.build({**config, **({"token": True} if "token" in options else {})})
        report = load_weights(wrapped, image.state_dict(), verbose=False)
        assert all(key.startswith("backbone.temporal.") for key in report.missing)
