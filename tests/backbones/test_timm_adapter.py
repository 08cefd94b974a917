"""Backbones of timm keep our contract, and are timm's own models."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from densevit.backbones import TimmBackbone
from densevit.errors import ConfigError, InstallationError
from densevit.features import Features, expected_shape
from densevit.model import DenseModel
from densevit.registry import BACKBONES
from densevit.structures import Meta, Sample, SegTarget
from densevit.weights import load_weights

timm = pytest.importorskip("timm")

SWIN = {"embed_dim": 24, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 3, 4)}
MODELS: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "mobilenetv3_small_050": {},
    "swin_tiny_patch4_window7_224": {"options": SWIN},  # wants to know sizes, and has channels last
    "vit_tiny_patch16_224": {"options": {"depth": 5}},  # one stride
}


def build(name: str, **options: Any) -> TimmBackbone:
    torch.manual_seed(0)
    return BACKBONES.build({"type": "timm", "name": name, **MODELS.get(name, {}), **options})


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def segmentor(name: str) -> DenseModel:
    torch.manual_seed(0)
    backbone = {"type": "timm", "name": name, **MODELS[name]}
    return DenseModel(backbone, {"type": "SegFormerHead", "num_classes": 3}, precision="fp32")


def tensors(features: Features) -> list[Tensor]:
    return [*features.maps, *([] if features.token is None else [features.token])]


@pytest.mark.parametrize("size", [(64, 96), (65, 111)])
def test_maps_have_the_promised_shapes_at_any_size(name: str, size: tuple[int, int]) -> None:
    backbone = build(name).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(2, 3, *size)).maps
    assert [tuple(m.shape) for m in maps] == [expected_shape(s, 2, size) for s in backbone.specs]


def test_default_maps_are_the_last_four_of_stride_four_and_more() -> None:
    assert [s.stride[0] for s in build("resnet18").specs] == [4, 8, 16, 32]
    assert [s.stride[0] for s in build("vit_tiny_patch16_224").specs] == [16] * 4
    assert build("resnet18").divisor == (32, 32)


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224"])
def test_maps_are_those_of_timm(name: str) -> None:
    extra = {**MODELS[name].get("options", {}), **({"strict_img_size": False} if "swin" in name else {})}
    theirs = timm.create_model(name, features_only=True, feature_cls="getter", out_indices=(1, 3), **extra).eval()
    ours = build(name, out_indices=(1, 3)).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for got, expected in zip(ours(x).maps, theirs(x), strict=True):
            torch.testing.assert_close(got, expected)


def test_the_token_is_what_timms_classifier_reads(name: str) -> None:
    backbone = build(name, token=True, img_size=64 if "swin" in name or "vit" in name else None).eval()
    theirs = timm.create_model(name, **MODELS[name].get("options", {}), num_classes=0)
    if "swin" not in name and "vit" not in name:
        backbone.model.load_state_dict(theirs.state_dict())
        x = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(backbone(x).token, theirs.eval()(x))
    token = backbone(torch.randn(2, 3, 64, 64)).token
    assert token is not None
    assert token.shape == (2, backbone.token_channels)
    assert backbone.specs == ()


def test_files_of_timm_are_loaded() -> None:
    theirs = timm.create_model("resnet18")
    model = segmentor("resnet18")
    report = load_weights(model, theirs.state_dict(), verbose=False)
    assert report.skipped == {}
    assert sorted(report.unexpected) == ["head.bias", "head.weight"]
    assert not any(key.startswith("backbone.") for key in report.missing)
    torch.testing.assert_close(model.backbone.model.layer4[1].conv2.weight, theirs.layer4[1].conv2.weight)


@pytest.mark.parametrize("token", [False, True])
def test_every_parameter_gets_a_gradient_and_is_in_one_group(name: str, token: bool) -> None:
    backbone = build(name, token=token).train()
    size = (224, 224) if token and name.startswith(("swin", "vit")) else (64, 64)
    sum(t.square().mean() for t in tensors(backbone(torch.randn(2, 3, *size)))).backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None] == []
    groups = backbone.layer_groups()
    assert len(groups) > 3
    for parameter, _ in backbone.named_parameters():
        assert sum(parameter.startswith(group) for group in groups) == 1, parameter


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224"])
def test_recomputing_activations_changes_no_gradient(name: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        backbone = build(name).train()
        backbone.checkpointing = checkpointing
        assert backbone.checkpointing == checkpointing
        assert any(getattr(m, "grad_checkpointing", False) for m in backbone.modules()) == checkpointing
        torch.manual_seed(1)
        sum(m.square().mean() for m in backbone(torch.randn(2, 3, 64, 64)).maps).backward()
        gradients.append([p.grad for p in backbone.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_frozen_stages_and_the_stem_do_not_learn() -> None:
    backbone = build("resnet18", frozen_stages=1).train()
    frozen = {n.split(".")[1] for n, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "bn1", "layer1"}
    assert not backbone.model.bn1.training
    assert not backbone.model.layer1[0].bn1.training
    assert backbone.model.layer2[0].bn1.training


def test_rates_of_drop_path_reach_timm() -> None:
    rates = [m.drop_prob for m in build("resnet18", drop_path=0.3).modules() if type(m).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.3)


def test_channels_of_the_input_are_checked() -> None:
    backbone = build("resnet18", in_channels=5).eval()
    assert len(backbone(torch.randn(1, 5, 64, 64)).maps) == 4
    with pytest.raises(ValueError, match="5"):
        backbone(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet81"}, "Did you mean .*resnet18"),
        ({"name": "qqqqqq"}, "list_models"),
        ({"name": "hf-hub:timm/resnet18"}, "not a model of timm"),
        ({"name": "resnet18", "out_indices": (3, 7)}, "out_indices"),
        ({"name": "resnet18", "out_indices": ()}, "token=True"),
        ({"name": "resnet18", "frozen_stages": 9}, "0 to 4"),
        ({"name": "resnet18", "img_size": 64}, "takes no img_size"),
        ({"name": "vgg11", "drop_path": 0.1}, "takes no drop_path_rate"),
        ({"name": "resnet18", "options": {"colour": "red"}}, "takes no colour"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BACKBONES.build({"type": "timm", **options})


def test_a_model_without_maps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(timm.models.resnet.ResNet, "forward_intermediates")
    with pytest.raises(ConfigError, match="features_only"):
        build("resnet18")


def test_compiles_and_exports() -> None:
    backbone, x = build("resnet18").eval(), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps = backbone(x).maps
        compiled = torch.compile(backbone, backend="aot_eager", fullgraph=True)(x).maps
        exported = torch.export.export(backbone, (x,)).module()(x).maps
    for plain, *others in zip(maps, compiled, exported, strict=True):
        for other in others:
            torch.testing.assert_close(other, plain)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "swin_tiny_patch4_window7_224"])
def test_the_segmentation_head_trains_on_it(name: str) -> None:
    model = segmentor(name).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, mask = torch.randn(2, 3, 64, 64), torch.randint(3, (64, 64))
    samples = [Sample(x[0], SegTarget(mask), Meta("", (64, 64), (64, 64)))] * 2
    losses = []
    for _ in range(3):
        loss = model(x, samples, mode="loss")["loss_seg"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_importing_densevit_does_not_import_timm() -> None:
    code = "import sys, densevit.backbones; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_timm_the_way_to_install_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InstallationError, match="pip install"):
        build("resnet18")
