"""FPN: equal to torchvision's with the same weights, and to its definition at any size."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from densevit.errors import ConfigError
from densevit.features import FeatureSpec, Maps, expected_shape
from densevit.necks import FPN
from densevit.registry import NECKS

SPECS = tuple(FeatureSpec(c, (s, s)) for c, s in ((6, 4), (8, 8), (10, 16), (12, 32)))
CHANNELS = 16


def fpn(**options: Any) -> FPN:
    """Return a neck in float64 with random biases too."""
    torch.manual_seed(0)
    neck: FPN = NECKS.build({"type": "FPN", "out_channels": CHANNELS, **options}, {"specs": SPECS}).double()
    for name, p in neck.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(p)
    return neck


def inputs(size: tuple[int, int], batch: int = 2) -> Maps:
    torch.manual_seed(1)
    return tuple(torch.randn(expected_shape(spec, batch, size), dtype=torch.float64) for spec in SPECS)


def torchvisions(neck: FPN, extra: Any = None) -> FeaturePyramidNetwork:
    """Return their pyramid with the weights of ours."""
    used = SPECS[neck.start_level :]
    theirs = FeaturePyramidNetwork([s.channels for s in used], CHANNELS, extra).double()
    state = {f"inner_blocks.{k.replace('.conv', '.0')}": v for k, v in neck.lateral_convs.state_dict().items()}
    for key, value in neck.fpn_convs.state_dict().items():
        level, _, kind = key.split(".")
        last = int(level) - len(used)
        name = f"layer_blocks.{level}.0" if last < 0 else f"extra_blocks.p{6 + last}"
        state[f"{name}.{kind}"] = value
    theirs.load_state_dict(state)
    return theirs


def run_theirs(theirs: FeaturePyramidNetwork, maps: Maps) -> list[Tensor]:
    return list(theirs({str(i): x for i, x in enumerate(maps)}).values())


@pytest.mark.parametrize("size", [(128, 192), (97, 130)])
def test_levels_are_those_of_torchvision(size: tuple[int, int]) -> None:
    neck, maps = fpn(), inputs(size)
    ours, theirs = neck(maps), run_theirs(torchvisions(neck), maps)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_a_pooled_level_is_that_of_mask_rcnn() -> None:
    neck, maps = fpn(num_outs=5), inputs((128, 192))
    for a, b in zip(neck(maps), run_theirs(torchvisions(neck, LastLevelMaxPool()), maps), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("extra", "channels"), [("on_input", SPECS[-1].channels), ("on_output", CHANNELS)])
def test_convolved_levels_are_those_of_retinanet(extra: str, channels: int) -> None:
    neck, maps = fpn(num_outs=5, start_level=1, extra=extra, relu_before_extra=True), inputs((128, 192))
    theirs = torchvisions(neck, LastLevelP6P7(channels, CHANNELS))
    for a, b in zip(neck(maps), run_theirs(theirs, maps[1:]), strict=True):
        torch.testing.assert_close(a, b)


def test_without_relu_an_extra_level_is_the_convolution_of_the_one_before() -> None:
    neck = fpn(num_outs=6, extra="on_input")
    outs = neck(inputs((128, 192)))
    last = neck.fpn_convs[5].conv
    torch.testing.assert_close(outs[5], F.conv2d(outs[4], last.weight, last.bias, stride=2, padding=1))


def test_at_odd_sizes_each_cell_adds_the_nearest_coarser_one() -> None:
    neck, maps = fpn(), inputs((97, 130))
    levels = [conv.conv(x) for conv, x in zip(neck.lateral_convs, maps, strict=True)]
    for i in (2, 1, 0):
        rows, columns = (
            torch.arange(n) * m // n for n, m in zip(levels[i].shape[2:], levels[i + 1].shape[2:], strict=True)
        )
        levels[i] = levels[i] + levels[i + 1][:, :, rows][:, :, :, columns]
    for out, conv, level in zip(neck(maps), neck.fpn_convs, levels, strict=True):
        torch.testing.assert_close(out, conv.conv(level))


@pytest.mark.parametrize("size", [(128, 192), (97, 130), (33, 70)])
@pytest.mark.parametrize(
    "options",
    [{}, {"start_level": 2}, {"num_outs": 6}, {"num_outs": 5, "start_level": 1, "extra": "on_output"}],
)
def test_levels_have_the_promised_shapes(options: dict[str, Any], size: tuple[int, int]) -> None:
    neck = fpn(**options)
    assert [tuple(x.shape) for x in neck(inputs(size))] == [expected_shape(s, 2, size) for s in neck.specs]


def test_strides_of_extra_levels_double() -> None:
    assert [s.stride for s in fpn(num_outs=5, start_level=1, extra="on_input").specs] == [
        (8, 8),
        (16, 16),
        (32, 32),
        (64, 64),
        (128, 128),
    ]


@pytest.mark.parametrize("extra", ["max_pool", "on_input", "on_output"])
def test_every_parameter_gets_a_gradient(extra: str) -> None:
    neck = fpn(num_outs=6, extra=extra)
    sum(x.square().mean() for x in neck(inputs((64, 96)))).backward()
    assert [n for n, p in neck.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_parameters_are_named_as_in_mmdetection() -> None:
    names = set(fpn(num_outs=5, start_level=1, extra="on_input").state_dict())
    assert names == {
        f"{part}.{i}.conv.{kind}"
        for part, count in (("lateral_convs", 3), ("fpn_convs", 5))
        for i in range(count)
        for kind in ("weight", "bias")
    }


def test_weights_begin_as_xaviers() -> None:
    neck = FPN(SPECS, out_channels=64)
    weight = neck.fpn_convs[0].conv.weight
    bound = (6 / (2 * 64 * 9)) ** 0.5
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert not neck.lateral_convs[0].conv.bias.any()


def test_compiles_and_exports() -> None:
    neck, maps = fpn(num_outs=5).eval(), inputs((64, 96))
    with torch.no_grad():
        expected = neck(maps)
        torch.testing.assert_close(torch.compile(neck, backend="aot_eager", fullgraph=True)(maps), expected)
        torch.testing.assert_close(torch.export.export(neck, (maps,)).module()(maps), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_level": 4}, "start_level of FPN must be one of its 4 maps, 0 to 3"),
        ({"num_outs": 3}, "reads 4 maps: num_outs must be at least that, not 3"),
        ({"extra": "on_inputs"}, "Did you mean 'on_input'"),
    ],
)
def test_impossible_levels_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fpn(**options)
