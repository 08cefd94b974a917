"""A backbone that says what is not so is refused with the attribute to mend, before it costs a training."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densevit.api import create_backbone, create_model
from densevit.errors import ConfigError
from densevit.features import Backbone, Features, FeatureSpec
from densevit.model import DenseModel
from densevit.registry import BACKBONES


class Drawn(Backbone):
    """Two maps at strides 4 and 8; ``said`` replaces attributes, and ``given`` what is returned."""

    divisor = (8, 8)
    specs = (FeatureSpec(8, (4, 4)), FeatureSpec(16, (8, 8)))

    def __init__(self, said: Any = None, given: Any = None) -> None:
        super().__init__()
        self.stem, self.down, self.given, self.calls = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 16, 2, 2), given, 0
        for name, value in (said or {}).items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        height, width = x.shape[-2:]
        x = nn.functional.pad(x, (0, -width % 8, 0, -height % 8))
        fine = self.stem(x)
        maps = (fine, self.down(fine))
        return self.given(x, maps) if self.given else Features(maps)


class Bare(Backbone):
    """Says nothing of itself."""

    def forward(self, x: Tensor) -> Features:
        return Features((x,))


class Foreign(nn.Module):
    """A module that is no backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.specs, self.divisor = Drawn.specs, (8, 8)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    parts = (Drawn, Bare, Foreign)
    for part in parts:
        BACKBONES.register_module(module=part)
    yield
    for part in parts:
        BACKBONES.module_dict.pop(part.__name__)


def build(**options: Any) -> DenseModel:
    backbone = {"type": "Drawn", **options}
    return DenseModel(backbone, {"type": "SegFormerHead", "num_classes": 3, "channels": 8}, precision="fp32").eval()


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("specs", None, r"Drawn: specs is a tuple with a FeatureSpec for each map, .* not None"),
        ("specs", FeatureSpec(8, (4, 4)), "Drawn: specs is a tuple"),
        ("specs", ((8, (4, 4)),), "Drawn: specs is a tuple"),
        ("specs", (FeatureSpec(8, 4), FeatureSpec(16, 8)), r"Drawn: specs\[0\]: stride is a tuple .*\(16, 16\), not 4"),  # type: ignore[arg-type]
        (
            "specs",
            (FeatureSpec(8, (4, 4)), FeatureSpec(16, (8, 8, 8))),
            r"Drawn: specs\[1\]: stride .* not \(8, 8, 8\)",
        ),
        ("specs", (FeatureSpec(8, [4, 4]),), r"Drawn: specs\[0\]: stride is a tuple"),  # type: ignore[arg-type]
        ("specs", (FeatureSpec(8.0, (4, 4)),), r"Drawn: specs\[0\]: channels is a positive whole number, not 8\.0"),  # type: ignore[arg-type]
        ("divisor", 8, r"Drawn: divisor is one whole number per axis, such as \(32, 32\), not 8"),
        ("divisor", None, "Drawn: divisor is one .* not None"),
        ("divisor", (8,), "Drawn: divisor is one"),
        ("divisor", (8, 0), "Drawn: divisor is one"),
        ("divisor", (8, 8, 8), r"Drawn: specs\[0\]: stride .* as many as divisor has"),
        ("in_channels", "3", "Drawn: in_channels is a whole number of at least 1, not '3'"),
        ("in_channels", 0, "Drawn: in_channels is a whole number"),
        ("token_channels", None, "Drawn: token_channels is a whole number of at least 0, not None"),
    ],
)
def test_what_a_backbone_says_wrongly_of_itself_is_named(attribute: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(said={attribute: value})
    for task in ("classification", "segmentation", "detection", "video"):
        with pytest.raises(ConfigError, match=message):
            create_model("Drawn", task, num_classes=3, said={attribute: value})


def test_what_a_backbone_does_not_say_is_named() -> None:
    with pytest.raises(ConfigError, match="Bare: divisor is one"):
        create_backbone("Bare")
    Bare.divisor = (8, 8)
    try:
        with pytest.raises(ConfigError, match="Bare: specs is a tuple"):
            create_backbone("Bare")
    finally:
        del Bare.divisor


def test_a_module_that_is_no_backbone_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Foreign is no backbone: derive its class from densevit\.Backbone"):
        DenseModel({"type": "Foreign"}, {"type": "SegFormerHead", "num_classes": 3})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda x, maps: maps, "Drawn: forward returns Features, with one map per spec, not a tuple of Tensor"),
        (lambda x, maps: maps[0], "Drawn: forward returns Features, .* not a Tensor"),
        (lambda x, maps: None, "Drawn: forward returns Features, .* not None"),
        (lambda x, maps: Features(maps[0]), "Drawn: maps of Features is a tuple of tensors, not a Tensor"),
        (lambda x, maps: Features(maps[:1]), "Drawn: forward returns 1 maps, but specs has 2"),
        (
            lambda x, maps: Features((maps[0], maps[1][:, :4])),
            r"map 1 is \(2, 4, 8, 9\) for an input of 64 x 72, .* 16 channels at stride \(8, 8\), so \(2, 16, 8, 9\)",
        ),
        (lambda x, maps: Features((maps[0], maps[1].repeat(1, 1, 2, 2))), r"Drawn: map 1 is \(2, 16, 16, 18\)"),
        (lambda x, maps: Features((maps[0], maps[1].flatten(2))), r"Drawn: map 1 is \(2, 16, 72\)"),
        (
            lambda x, maps: Features(maps, maps[1].mean((2, 3))),
            "Drawn: forward returns a token, but token_channels is 0",
        ),
    ],
)
def test_what_forward_returns_is_compared_with_what_was_said(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(given=given)(torch.zeros(2, 3, 64, 72))


@pytest.mark.parametrize(("token", "shown"), [(None, "None"), (torch.zeros(2, 5), r"\(2, 5\)"), ("x", "a str")])
def test_a_token_is_compared_with_its_channels(token: Any, shown: str) -> None:
    options = {"said": {"token_channels": 16, "specs": ()}, "given": lambda x, maps: Features((), token)}
    model = create_model("Drawn", num_classes=3, **options)
    with pytest.raises(ConfigError, match=rf"Drawn: the token is {shown}, but token_channels says \(2, 16\)"):
        model(torch.zeros(2, 3, 64, 64))


def test_channels_and_axes_of_the_input_are_named() -> None:
    with pytest.raises(
        ConfigError, match=r"expected inputs \(N, C, \.\.\.\), got \(2, 1, 64, 64\): .*in_channels.*: 1 "
    ):
        build()(torch.zeros(2, 1, 64, 64))
    with pytest.raises(ConfigError, match="Drawn: in_channels is 1, but it takes inputs of 3 channels"):
        build(said={"in_channels": 1})(torch.zeros(2, 3, 64, 64))
    with pytest.raises(ConfigError, match="Drawn is for inputs of 2 axes"):
        build(given=lambda x, maps: Features(maps))(torch.zeros(3, 64, 64))


def test_another_error_of_the_network_is_left_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="Input type") as error:
        build()(torch.zeros(2, 3, 64, 64, dtype=torch.int64))
    assert not isinstance(error.value, ConfigError)


def test_only_the_first_batch_that_fits_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = build(), []
    monkeypatch.setattr("densevit.model.checked_features", lambda net, x: seen.append(x) or net(x))
    for side in (63, 64, 65):  # rounded up to cells
        assert model(torch.zeros(1, 3, side, 70)).shape[2:] == (2 * -(-side // 8), 18)
    assert len(seen) == 1
    assert model.backbone.calls == 3
    assert "backbone_seen" not in "".join(model.state_dict())


def test_a_backbone_that_was_refused_is_refused_again() -> None:
    model = build(given=lambda x, maps: Features(maps[:1]))
    for _ in range(2):
        with pytest.raises(ConfigError, match="returns 1 maps"):
            model(torch.zeros(1, 3, 64, 64))


def test_graphs_do_not_see_the_comparison() -> None:
    torch.compiler.reset()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        model = create_model("Drawn", num_classes=3).eval()
        program = torch.export.export(model, (x,))
        traced = torch.jit.trace(model, x, check_trace=False)
        compiled = torch.compile(model, backend="eager", fullgraph=True)(x)
        assert not model.backbone_seen
        expected = model(x)
        assert model.backbone_seen
        for found in (program.module()(x), traced(x), compiled):
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_compiled_backbone_is_compared_from_outside(checkpointing: bool) -> None:
    torch.compiler.reset()
    head = {"type": "SegFormerHead", "num_classes": 3, "channels": 8}
    wrong = {"type": "Drawn", "given": lambda x, maps: Features(maps[::-1])}
    options: dict[str, Any] = {"precision": "fp32", "compile": {"backend": "eager"}}
    with pytest.raises(ConfigError, match="Drawn: map 0 is"):
        DenseModel(wrong, head, activation_checkpointing=checkpointing, **options)(torch.zeros(1, 3, 64, 64))
