"""ViT of timm with the same weights, copied or read from a file of JAX: same logits, same gradients."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densevit.api import create_model
from densevit.model import DenseModel
from densevit.weights import load_weights

timm = pytest.importorskip("timm")

GOLDEN = Path(__file__).parents[1] / "golden"
DEPTH = 3
# Options of ours and of theirs.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tok": ({"pool": "tok", "gelu": "exact"}, {}),
    "tok, no position": ({"pool": "tok", "gelu": "exact"}, {"no_embed_class": True}),
    "gap": ({"gelu": "exact"}, {"class_token": False, "global_pool": "avg", "fc_norm": False}),
    "map": ({"pool": "map"}, {"class_token": False, "global_pool": "map", "act_layer": "gelu_tanh"}),
}


def build(case: str) -> tuple[DenseModel, Any]:
    torch.manual_seed(0)
    ours, theirs = CASES[case]
    settings = {"img_size": 64, "depth": DEPTH, "num_classes": 10}
    return create_model("vit_ti16", **settings, **ours), timm.create_model("vit_tiny_patch16_224", **settings, **theirs)


def load(ours: DenseModel, source: Any) -> None:
    report = load_weights(ours, source, verbose=False)
    assert report.missing == report.unexpected == []
    assert report.skipped == report.resized == {}


def images(*size: int) -> torch.Tensor:
    return torch.randn(2, 3, *size, dtype=torch.float64)


@pytest.mark.parametrize("case", CASES)
def test_logits_and_gradients_are_equal(case: str) -> None:
    ours, theirs = build(case)
    for value in theirs.state_dict().values():
        value.normal_(std=0.1)
    load(ours, theirs.state_dict())
    ours, theirs, x = ours.double().train(), theirs.double().train(), images(64, 64)
    (a, b), weights = (ours(x), theirs(x)), torch.randn(2, 10, dtype=torch.float64)
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    for logits in (a, b):
        (logits * weights).sum().backward()
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    for name, p in ours.named_parameters():
        grad = expected[name.removeprefix("backbone.").replace("head.fc", "head")]
        if name == "backbone.pos_embed":
            grad = grad[:, -16:]  # theirs may have a position of the class token
        torch.testing.assert_close(p.grad, grad, rtol=1e-5, atol=1e-6, msg=name)


def jax_file(path: Path, golden: str, start: str, old: bool) -> Path:
    """Write random weights by the official names: those of big_vision, or the older ones."""
    rng, arrays = np.random.default_rng(0), {}
    for name, shape in json.loads((GOLDEN / f"{golden}.json").read_text())["keys"].items():
        if old:
            name = name.replace("LayerNorm_1", "LayerNorm_2").replace("MlpBlock_0", "MlpBlock_3")
            name = name.replace("MultiHeadDotProductAttention_0", "MultiHeadDotProductAttention_1")
            name = name.replace("pos_embedding", "Transformer/posembed_input/pos_embedding")
        for i in range(DEPTH if "*" in name else 1):
            positions = (1, 17, 192) if old and name.endswith("pos_embedding") else shape
            arrays[start + name.replace("*", str(i))] = (0.1 * rng.standard_normal(positions)).astype(np.float32)
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("case", "golden", "start", "old"),
    [
        ("tok", "bvvit_Ti16_tok_64", "", True),
        ("tok", "bvvit_Ti16_tok_64", "opt/target/", True),
        ("gap", "bvvit_Ti16_gap_64", "params/", False),
        ("map", "bvvit_Ti16_map_64", "params/", False),
    ],
)
def test_files_of_jax_are_read_alike(case: str, golden: str, start: str, old: bool, tmp_path: Path) -> None:
    ours, theirs = build(case)
    path = jax_file(tmp_path / "vit.npz", golden, start, old)
    load(ours, path)
    theirs.load_pretrained(str(path))
    x = images(64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.double().eval()(x), theirs.double().eval()(x), rtol=1e-6, atol=1e-6)


def test_a_classifier_on_the_mean_takes_the_blocks_of_one_with_a_class_token() -> None:
    ours, theirs = build("gap")[0], build("tok")[1]
    report = load_weights(ours, theirs.state_dict(), verbose=False)
    assert report.missing == []
    assert report.unexpected == ["backbone.cls_token"]
    assert torch.equal(ours.backbone.pos_embed, theirs.pos_embed[:, 1:])
