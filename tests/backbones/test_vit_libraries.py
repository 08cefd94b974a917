"""ViT of transformers and of torchvision with the same weights: same logits, however they are stored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densevit.api import create_model
from densevit.model import DenseModel
from densevit.weights import load_weights

CLASSES = 7
SIZES = {"img_size": 64, "dim": 32, "depth": 3, "num_heads": 4, "hidden": 64}


def of_transformers() -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=64,
        patch_size=16,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        num_labels=CLASSES,
        layer_norm_eps=1e-6,
    )
    model = transformers.ViTForImageClassification(config)
    return model, lambda x: model(x).logits


def of_torchvision() -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(64, 16, 3, 4, 32, 64, num_classes=CLASSES)
    return model, model


@pytest.fixture
def ours() -> DenseModel:
    return create_model("ViT", num_classes=CLASSES, pool="tok", gelu="exact", **SIZES).double().eval()


def load(model: DenseModel, source: Any) -> None:
    report = load_weights(model, source, verbose=False)
    assert report.missing == report.unexpected == []
    assert report.skipped == report.resized == {}


@pytest.mark.parametrize("library", [of_transformers, of_torchvision])
def test_logits_are_equal(library: Callable[..., Any], ours: DenseModel) -> None:
    torch.manual_seed(0)
    theirs, logits = library()
    theirs.double().eval()
    for p in theirs.parameters():
        nn.init.normal_(p, std=0.2)
    load(ours, theirs.state_dict())
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), logits(x), rtol=1e-9, atol=1e-9)


def test_files_that_transformers_writes_are_read(ours: DenseModel, tmp_path: Path) -> None:
    theirs, logits = of_transformers()
    theirs.double().eval().save_pretrained(tmp_path)
    load(ours, tmp_path / "model.safetensors")
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), logits(x), rtol=1e-9, atol=1e-9)
