"""TimeSformer of transformers with the same weights: same logits, same gradients, whatever its attention."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densevit.api import create_model
from densevit.backbones import TimeSformer
from densevit.model import DenseModel
from densevit.weights import load_weights

transformers = pytest.importorskip("transformers")
CLASSES = 7
OFFICIAL = {"divided": "divided_space_time", "joint": "joint_space_time", "space": "space_only"}


@pytest.fixture(params=OFFICIAL)
def pair(request: pytest.FixtureRequest) -> tuple[DenseModel, Any]:
    """Return our model and theirs, small, with their random weights."""
    torch.manual_seed(0)
    config = transformers.TimesformerConfig(
        image_size=64,
        num_frames=4,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        num_labels=CLASSES,
        attention_type=OFFICIAL[request.param],
    )
    theirs = transformers.TimesformerForVideoClassification(config).double()
    for p in theirs.parameters():
        nn.init.normal_(p, std=0.2)
    options = {"dim": 32, "depth": 3, "num_heads": 4, "hidden": 64, "img_size": 64, "num_frames": 4}
    ours = create_model("TimeSformer", num_classes=CLASSES, attention=request.param, drop_path=0.0, **options).double()
    report = load_weights(ours, theirs.state_dict(), verbose=False)
    assert report.missing == report.unexpected == report.completed == []
    assert report.resized == report.skipped == {}
    return ours, theirs


def logits_of(theirs: Any, x: Tensor) -> Tensor:
    """Return its logits; where frames are by themselves it has some for each, whose tokens are officially averaged."""
    if theirs.config.attention_type != "space_only":
        return theirs(x).logits
    net = theirs.timesformer
    token = net.encoder(net.embeddings(x), return_dict=True).last_hidden_state[:, 0]
    return theirs.classifier(net.layernorm(token.unflatten(0, (len(x), -1)).mean(dim=1)))


# Blocks of theirs are bound to the width and the number of frames of their config.
@pytest.mark.parametrize("size", [(64, 64), (96, 64)])
def test_logits_and_gradients_are_equal(pair: tuple[DenseModel, Any], size: tuple[int, int]) -> None:
    ours, theirs = pair[0].train(), pair[1].train()
    x, weights = torch.randn(2, 3, 4, *size, dtype=torch.float64), torch.randn(2, CLASSES, dtype=torch.float64)
    a, b = ours(x), logits_of(theirs, x.transpose(1, 2))
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    for result in (a, b):
        (result * weights).sum().backward()
    expected = {name: p.grad for name, p in theirs.timesformer.named_parameters()}
    expected = TimeSformer.translate(expected)
    for name, p in ours.backbone.named_parameters():
        torch.testing.assert_close(p.grad, expected.pop(name), msg=name)
    assert expected == {}
    torch.testing.assert_close(ours.head.fc.weight.grad, theirs.classifier.weight.grad)


def test_files_that_it_writes_are_read(pair: tuple[DenseModel, Any], tmp_path: Path) -> None:
    ours, theirs = pair
    theirs.save_pretrained(tmp_path)
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    for p in ours.parameters():
        nn.init.zeros_(p)
    report = load_weights(ours, tmp_path / "model.safetensors", verbose=False)
    assert report.missing == report.unexpected == []
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())
