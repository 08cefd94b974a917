"""XCiT of timm with the same weights: same features, same gradients, same statistics of batch norm."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densevit.backbones import XCiT
from densevit.weights import load_weights

xcit = pytest.importorskip("timm.models.xcit")
CASES = [(16, True), (16, False), (8, True)]


def pair(patch_size: int, tokens_norm: bool) -> tuple[XCiT, Any]:
    """Return our model and theirs with the same random weights and statistics."""
    torch.manual_seed(0)
    theirs = xcit.Xcit(
        patch_size=patch_size, embed_dim=32, depth=2, num_heads=4, eta=0.5, tokens_norm=tokens_norm, num_classes=0
    )
    for key, value in theirs.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if key.endswith("running_var") else value.normal_(std=0.2)
    ours = XCiT(patch_size=patch_size, dim=32, depth=2, num_heads=4, tokens_norm=tokens_norm, token=True)
    report = load_weights(ours, theirs.state_dict(), verbose=False)
    assert report.missing == report.unexpected == []
    assert report.skipped == report.resized == {}
    # Theirs computes positions in single precision, whatever that of the weights.
    return ours.double(), theirs.double()


@pytest.mark.parametrize(("patch_size", "tokens_norm"), CASES)
@pytest.mark.parametrize("size", [(64, 64), (96, 160), (97, 130)])
def test_tokens_are_equal(patch_size: int, tokens_norm: bool, size: tuple[int, int]) -> None:
    ours, theirs = pair(patch_size, tokens_norm)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x).token, theirs.eval()(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("patch_size", [8, 16])
def test_maps_at_the_stride_of_the_blocks_are_equal(patch_size: int) -> None:
    _, theirs = pair(patch_size, True)
    level = 1 if patch_size == 8 else 2
    ours = XCiT(patch_size=patch_size, dim=32, depth=2, num_heads=4, out_indices=(level,)).double().eval()
    load_weights(ours, theirs.state_dict(), verbose=False)
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs.eval().forward_intermediates(x, indices=[0], intermediates_only=True)[0]
        torch.testing.assert_close(ours(x).maps[0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("patch_size", "tokens_norm"), CASES)
def test_gradients_and_statistics_of_a_training_step_are_equal(patch_size: int, tokens_norm: bool) -> None:
    ours, theirs = pair(patch_size, tokens_norm)
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    weights = torch.randn(2, 32, dtype=torch.float64)
    (ours.train()(x).token * weights).sum().backward()
    (theirs.train()(x) * weights).sum().backward()
    expected = XCiT.translate({n: p.grad for n, p in theirs.named_parameters()})
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, expected.pop(name), rtol=1e-5, atol=1e-6, msg=name)
    assert expected == {}
    for mine, other in zip(statistics(ours), statistics(theirs), strict=True):
        torch.testing.assert_close(mine, other)


def statistics(model: nn.Module) -> list[Tensor]:
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    return [s for m in norms for s in (m.running_mean, m.running_var) if s is not None]
