"""Weights that go from one task or image size to another."""

from typing import Any

import pytest
import torch
from torch import Tensor

from densevit.errors import CheckpointError
from densevit.model import DenseModel
from densevit.registry import BACKBONES, MODELS
from densevit.weights import load_weights

MIT = {"type": "MiT", "dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "num_heads": (1, 2, 3, 4)}


def build(backbone: dict[str, Any], head: dict[str, Any]) -> DenseModel:
    torch.manual_seed(0)
    return MODELS.build({"type": "DenseModel", "backbone": {**MIT, **backbone}, "head": {"num_classes": 9, **head}})


@pytest.mark.parametrize("name", ["head", "classifier", "fc", "head.fc", "head.projection", "cls_head.fc_cls"])
def test_a_classifier_is_loaded_by_any_of_its_names(name: str) -> None:
    model = build({"token": True}, {"type": "ClassificationHead"})
    source: dict[str, Tensor] = model.backbone.state_dict()
    source |= {f"{name}.weight": torch.randn(9, 32), f"{name}.bias": torch.randn(9)}
    report = load_weights(model, source)
    assert report.missing == report.unexpected == []
    assert torch.equal(model.head.fc.weight, source[f"{name}.weight"])


def test_weights_of_a_classifier_start_a_dense_model() -> None:
    settings = {"type": "XCiT", "dim": 32, "depth": 6, "num_heads": 2}
    classifier, dense = (BACKBONES.build({**settings, **options}) for options in ({"token": True}, {}))
    state = classifier.state_dict()
    report = load_weights(dense, state)
    assert report.missing
    assert all(name.startswith("backbone.fpn") for name in report.missing)
    with pytest.raises(CheckpointError, match="lacks"):
        load_weights(dense, {key: value for key, value in state.items() if not key.startswith("blocks.3.")})


def test_positions_of_another_image_size_are_resized_and_reported() -> None:
    large, small = (BACKBONES.build({"type": "cmt_ti", "img_size": size}) for size in (64, 32))
    before = small.relative_pos_a.clone()
    report = load_weights(small, large.state_dict())
    assert set(report.resized) == {f"backbone.relative_pos_{stage}" for stage in "abcd"}
    assert report.skipped == {}
    assert not torch.equal(small.relative_pos_a, before)


def test_the_official_auxiliary_head_is_loaded() -> None:
    auxiliary = {"type": "FCNHead", "num_classes": 9, "channels": 8}
    model = build({}, {"type": "UPerHead", "channels": 8, "auxiliary": auxiliary})
    official = {}
    for key, value in model.state_dict().items():
        name = key.removeprefix("head.")
        whole = key.startswith("backbone.") or name.startswith("auxiliary_head.")
        official[name if whole else f"decode_head.{name}"] = value
    assert any(key.startswith("auxiliary_head.") for key in official)
    report = load_weights(model, official)
    assert report.missing == report.unexpected == []


def test_norms_that_timm_keeps_in_its_head_belong_to_the_backbone() -> None:
    timm = pytest.importorskip("timm")
    options = {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 24)}
    backbone = {"type": "timm", "name": "convnext_atto", "options": options, "token": True}
    head = {"type": "ClassificationHead", "num_classes": 9}
    model = MODELS.build({"type": "DenseModel", "backbone": backbone, "head": head})
    source = timm.create_model("convnext_atto", num_classes=9, **options).state_dict()
    assert "head.norm.weight" in source
    report = load_weights(model, source)
    assert report.missing == report.unexpected == []
