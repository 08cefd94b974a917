"""Every backbone keeps the contract of densevit.features; the smallest variant stands for its family."""

from typing import Any

import pytest
import torch
from torch import Tensor

from densevit.features import Backbone, Features, expected_shape
from densevit.registry import BACKBONES

SMALLEST = ["mit_b0"]


def build(name: str, **options: Any) -> Backbone:
    torch.manual_seed(0)
    return BACKBONES.build({"type": name, **options})


@pytest.fixture(params=SMALLEST)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def backbone(name: str) -> Backbone:
    return build(name).eval()


def images(backbone: Backbone, batch: int = 2, extra: int = 0) -> Tensor:
    """Return inputs of two or three times the divisor, with ``extra`` pixels."""
    torch.manual_seed(1)
    return torch.randn(batch, 3, *(d * (2 + i) + extra for i, d in enumerate(backbone.divisor)))


def tensors(features: Features) -> list[Tensor]:
    return [*features.maps, *([] if features.token is None else [features.token])]


def assert_equal(a: Features, b: Features, tolerance: float = 1e-5) -> None:
    assert len(a.maps) == len(b.maps)
    for x, y in zip(tensors(a), tensors(b), strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance * y.abs().max().item())


@pytest.mark.parametrize("extra", [0, 1, 17])
def test_maps_have_the_promised_shapes_at_any_size(backbone: Backbone, extra: int) -> None:
    x = images(backbone, extra=extra)
    maps = backbone(x).maps
    assert [tuple(m.shape) for m in maps] == [expected_shape(s, 2, x.shape[2:]) for s in backbone.specs]


def test_maps_go_from_fine_to_coarse(backbone: Backbone) -> None:
    strides = [s.stride for s in backbone.specs]
    assert strides == sorted(strides)


def test_every_parameter_gets_a_gradient(backbone: Backbone) -> None:
    backbone.train()
    sum(t.square().mean() for t in tensors(backbone(images(backbone)))).backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_samples_do_not_affect_each_other(backbone: Backbone) -> None:
    x = images(backbone)
    alone, both = backbone(x[:1]), backbone(x)
    assert_equal(alone, Features(tuple(m[:1] for m in both.maps), None if both.token is None else both.token[:1]))


@pytest.mark.parametrize("batch", [1, 2])
def test_memory_layout_of_the_input_does_not_matter(backbone: Backbone, batch: int) -> None:
    x = images(backbone, batch)
    assert_equal(backbone(x.contiguous(memory_format=torch.channels_last)), backbone(x))


def test_runs_in_double_precision(backbone: Backbone) -> None:
    x = images(backbone)
    single, double = backbone(x), backbone.double()(x.double())
    assert all(t.dtype == torch.float64 for t in tensors(double))
    assert_equal(Features(tuple(m.float() for m in double.maps), double.token), single)


def test_runs_under_bf16_autocast(backbone: Backbone) -> None:
    backbone.train()
    x = images(backbone)
    with torch.autocast("cpu", torch.bfloat16):
        features = backbone(x)
        sum(t.float().square().mean() for t in tensors(features)).backward()
    assert all(t.isfinite().all() for t in tensors(features))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())


def test_compiles_without_a_break(backbone: Backbone) -> None:
    x = images(backbone)
    with torch.no_grad():
        assert_equal(torch.compile(backbone, backend="aot_eager", fullgraph=True)(x), backbone(x))


def test_exports(backbone: Backbone) -> None:
    x = images(backbone)
    with torch.no_grad():
        assert_equal(torch.export.export(backbone, (x,)).module()(x), backbone(x))


def test_state_dict_holds_everything(name: str, backbone: Backbone) -> None:
    other = build(name).eval()
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1)
    other.load_state_dict(backbone.state_dict())
    assert_equal(other(images(backbone)), backbone(images(backbone)))


def test_construction_reads_no_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("construction must not read files")

    build(name)  # imports what it needs
    monkeypatch.setattr("builtins.open", fail)
    monkeypatch.setattr("socket.socket", fail)
    build(name)


def test_any_number_of_input_channels_can_be_asked_for(name: str) -> None:
    backbone = build(name, in_channels=5).eval()
    assert len(backbone(torch.randn(1, 5, *(2 * d for d in backbone.divisor))).maps) == len(backbone.specs)
    with pytest.raises(ValueError, match="5"):
        backbone(images(backbone))


def test_own_weights_pass_through_translation(backbone: Backbone) -> None:
    state = backbone.state_dict()
    translated = backbone.translate(state)
    assert translated.keys() == state.keys()
    assert all(torch.equal(translated[key], state[key]) for key in state)
