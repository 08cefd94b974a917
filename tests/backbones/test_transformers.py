"""SegFormer of transformers with the same weights: same logits, same gradients, however the weights are stored."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densevit.api import create_model
from densevit.backbones import MiT
from densevit.model import DenseModel
from densevit.structures import Meta, Sample, SegTarget
from densevit.tasks.segmentation import SegFormerHead
from densevit.weights import load_weights

transformers = pytest.importorskip("transformers")
CLASSES = 7


@pytest.fixture
def theirs() -> Any:
    """Return their model, small, with random weights and statistics of batch norm, and the official epsilons."""
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 2, 1, 1],
        num_attention_heads=[1, 2, 3, 4],
        decoder_hidden_size=16,
        num_labels=CLASSES,
        drop_path_rate=0.0,
        classifier_dropout_prob=0.0,
    )
    model = transformers.SegformerForSemanticSegmentation(config)
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if key.endswith("running_var") else value.normal_(std=0.2)
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm) and not ("patch_embeddings" in name or "reduction" in name):
            module.eps = 1e-6
    return model.double()


@pytest.fixture
def ours() -> DenseModel:
    return create_model(
        "MiT",
        "segmentation",
        num_classes=CLASSES,
        head={"channels": 16, "dropout": 0.0},
        dims=(8, 16, 24, 32),
        depths=(1, 2, 1, 1),
        num_heads=(1, 2, 3, 4),
        drop_path=0.0,
    ).double()


@pytest.mark.parametrize("size", [(64, 64), (97, 130)])
def test_logits_are_equal(ours: DenseModel, theirs: Any, size: tuple[int, int]) -> None:
    report = load_weights(ours, theirs.state_dict())
    assert report.missing == report.unexpected == []
    assert report.skipped == {}
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x).logits, rtol=1e-9, atol=1e-9)


def test_files_that_it_writes_are_read(ours: DenseModel, theirs: Any, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    report = load_weights(ours, tmp_path / "model.safetensors")
    assert report.missing == report.unexpected == []
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x).logits, rtol=1e-9, atol=1e-9)


def test_losses_gradients_and_statistics_of_a_training_step_are_equal(ours: DenseModel, theirs: Any) -> None:
    load_weights(ours, theirs.state_dict())
    x, labels = torch.randn(2, 3, 64, 96, dtype=torch.float64), torch.randint(CLASSES, (2, 64, 96))
    labels[:, :20] = 255
    samples = [Sample(x[0], SegTarget(mask), Meta("", (64, 96), (64, 96))) for mask in labels]
    loss = ours.train()(x, samples, mode="loss")["loss_seg"]
    reference = theirs.train()(x, labels=labels).loss
    loss.backward()
    reference.backward()
    torch.testing.assert_close(loss, reference)
    gradients = translate({name: p.grad for name, p in theirs.named_parameters()})
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, gradients.pop(name), msg=name)
    assert gradients == {}
    bn = ours.head.linear_fuse.bn
    torch.testing.assert_close(bn.running_mean, theirs.decode_head.batch_norm.running_mean)
    torch.testing.assert_close(bn.running_var, theirs.decode_head.batch_norm.running_var)


def translate(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename, and join those of keys and values, as is done with weights."""
    prefix = "decode_head."
    head = SegFormerHead.translate({k[len(prefix) :]: v for k, v in named.items() if k.startswith(prefix)})
    backbone = MiT.translate({k: v for k, v in named.items() if not k.startswith(prefix)})
    return {f"backbone.{k}": v for k, v in backbone.items()} | {f"head.{k}": v for k, v in head.items()}
