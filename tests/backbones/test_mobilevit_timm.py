"""MobileViT of timm with the same weights: same logits and maps, same gradients, same statistics of batch norm."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densevit.api import create_backbone, create_model
from densevit.backbones import MobileViT
from densevit.weights import load_weights

timm = pytest.importorskip("timm")
SIZES = [(64, 64), (96, 160), (97, 130)]


def pair(name: str) -> tuple[Any, Any]:
    """Return our classifier and theirs, both without dropout, with the same random weights and statistics."""
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=7)
    for key, value in theirs.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if key.endswith("running_var") else value.add_(torch.randn_like(value) * 0.1)
    ours = create_model(name, num_classes=7, dropout=0.0)
    report = load_weights(ours, theirs.state_dict(), verbose=False)
    assert report.missing == report.unexpected == []
    assert report.skipped == report.resized == {}
    return ours.double(), theirs.double()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["mobilevit_xxs", pytest.param("mobilevit_s", marks=pytest.mark.slow)])
def test_logits_are_equal(name: str, size: tuple[int, int]) -> None:
    ours, theirs = pair(name)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        assert_close(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("size", SIZES)
def test_maps_are_equal(size: tuple[int, int]) -> None:
    _, theirs = pair("mobilevit_xxs")
    ours = create_backbone("mobilevit_xxs").double().eval()
    load_weights(ours, theirs.state_dict(), verbose=False)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = []
    for stage in theirs.stages[1:]:
        stage.register_forward_hook(lambda module, args, out: expected.append(out))
    with torch.no_grad():
        theirs.eval()(x)
        for mine, other in zip(ours(x).maps, expected, strict=True):
            assert_close(mine, other)


def test_gradients_and_statistics_of_a_training_step_are_equal() -> None:
    ours, theirs = pair("mobilevit_xxs")
    x = torch.randn(2, 3, 96, 160, dtype=torch.float64)
    weights = torch.randn(2, 7, dtype=torch.float64)
    (ours.train()(x) * weights).sum().backward()
    (theirs.train()(x) * weights).sum().backward()
    grads = {name: p.grad for name, p in theirs.named_parameters()}
    head = {name.partition(".")[2]: grads.pop(name) for name in list(grads) if name.startswith("head.")}
    expected = MobileViT.translate(grads)
    for part, found in ((ours.backbone, expected), (ours.head, head)):
        own = dict(part.named_parameters())
        assert own.keys() == found.keys()
        for name, p in own.items():
            assert_close(p.grad, found[name])
    for mine, other in zip(statistics(ours), statistics(theirs), strict=True):
        assert_close(mine, other)


def statistics(model: nn.Module) -> list[Tensor]:
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    return [s for m in norms for s in (m.running_mean, m.running_var) if s is not None]


def assert_close(a: Tensor, b: Tensor) -> None:
    # Some gradients are zero but for rounding: a batch norm later on takes what their parameter adds away.
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * max(1.0, b.abs().max().item()))
