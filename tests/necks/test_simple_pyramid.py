"""The pyramid from one stride: sizes, what is read, what is refused."""

import math

import pytest
import torch
from torch import nn

from densevit.errors import ConfigError
from densevit.features import FeatureSpec, expected_shape
from densevit.necks import SimplePyramid
from densevit.necks.simple_pyramid import Rescale
from densevit.registry import NECKS

SIZE = (64, 96)


def build(read: list[int], channels: int = 32, **options: object) -> SimplePyramid:
    torch.manual_seed(0)
    specs = tuple(FeatureSpec(channels, (s, s)) for s in read)
    return NECKS.build({"type": "SimplePyramid", "out_channels": 16, **options}, {"specs": specs})


def inputs(strides: list[int], channels: int = 32, size: tuple[int, int] = SIZE) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    return tuple(torch.randn(expected_shape(FeatureSpec(channels, (s, s)), 2, size)) for s in strides)


@pytest.mark.parametrize("stride", [2, 4, 7, 8, 14, 16, 20, 32, 64])
@pytest.mark.parametrize("size", [SIZE, (97, 130), (9, 5)])
def test_any_stride_is_brought_to_all(stride: int, size: tuple[int, int]) -> None:
    neck = build([stride])
    levels = neck(inputs([stride], size=size), size)
    assert [s.stride for s in neck.specs] == [(4, 4), (8, 8), (16, 16), (32, 32)]
    assert [tuple(x.shape) for x in levels] == [expected_shape(s, 2, size) for s in neck.specs]


def test_the_coarsest_map_is_read() -> None:
    neck = build([4, 8, 16])
    fine, middle, coarse = inputs([4, 8, 16])
    for a, b in zip(neck((fine, middle, coarse), SIZE), neck((fine + 1, middle + 1, coarse), SIZE), strict=True):
        assert torch.equal(a, b)


def test_each_level_reads_its_own_of_maps_of_one_stride() -> None:
    neck, maps = build([16] * 4), inputs([16] * 4)
    before = neck(maps, SIZE)
    for i in range(4):
        after = neck(tuple(m + (j == i) * torch.randn(m.shape) for j, m in enumerate(maps)), SIZE)
        assert [not torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [j == i for j in range(4)]


@pytest.mark.parametrize("stride", [16, 14, 7])
def test_every_parameter_gets_a_gradient(stride: int) -> None:
    neck = build([stride])
    sum((level * torch.randn(level.shape)).sum() for level in neck(inputs([stride]), SIZE)).backward()
    assert [n for n, p in neck.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_parameters_are_named_as_in_detectron2() -> None:
    state = {k: tuple(v.shape) for k, v in build([16]).state_dict().items()}
    assert state["simfp_2.0.weight"] == (32, 16, 2, 2)
    assert state["simfp_2.1.weight"] == (16,)
    assert state["simfp_2.3.weight"] == (16, 8, 2, 2)
    assert state["simfp_2.4.weight"] == (16, 8, 1, 1)
    assert state["simfp_3.1.norm.bias"] == (16,)
    assert state["simfp_4.1.weight"] == (16, 16, 3, 3)
    assert state["simfp_5.2.norm.weight"] == (16,)
    assert "simfp_2.4.bias" not in state


def test_levels_are_normed_over_channels() -> None:
    for level in build([16])(inputs([16]), SIZE):
        torch.testing.assert_close(level.mean(dim=1), torch.zeros(level[:, 0].shape), atol=1e-5, rtol=0)
        torch.testing.assert_close(level.var(dim=1, correction=0), torch.ones(level[:, 0].shape), atol=1e-2, rtol=0)


def test_the_level_at_the_stride_of_the_map_is_convolved_only() -> None:
    neck = build([16])
    assert [type(m).__name__ for m in neck.simfp_4] == ["NormedConv", "NormedConv"]
    assert isinstance(neck.simfp_5[0], nn.MaxPool2d)


@pytest.mark.parametrize("stride", [2, 4, 8, 16, 32, 64])
def test_nothing_is_interpolated_where_a_power_of_two_suffices(stride: int) -> None:
    assert not any(isinstance(m, Rescale) for m in build([stride]).modules())


@pytest.mark.parametrize(
    ("stride", "doublings", "pools"), [(14, [2, 1, 0, 0], [0, 0, 0, 2]), (7, [1, 0, 0, 0], [0, 0, 2, 4])]
)
def test_other_strides_are_brought_near_by_the_nearest_power_of_two(
    stride: int, doublings: list[int], pools: list[int]
) -> None:
    levels = list(build([stride]).children())
    assert [sum(isinstance(m, nn.ConvTranspose2d) for m in level) for level in levels] == doublings
    assert [sum(m.kernel_size for m in level if isinstance(m, nn.MaxPool2d)) for level in levels] == pools
    assert [[m.factor for m in level if isinstance(m, Rescale)] for level in levels] == [[7 / 8]] * 4


@pytest.mark.parametrize("stride", [7, 14, 20])
@pytest.mark.parametrize("size", [(224, 280), (97, 130)])
def test_cells_stay_in_place(stride: int, size: tuple[int, int]) -> None:
    neck = build([stride])
    for level, spec in zip(neck.children(), neck.specs, strict=True):
        rescale = next(m for m in level if isinstance(m, Rescale))
        before = spec.stride[0] * rescale.factor  # pixels per cell where it reads
        centres = (torch.arange(math.ceil(size[1] / before)) + 0.5) * float(before)
        found = rescale(centres.expand(1, 1, 4, -1))[0, 0, 0]
        expected = (torch.arange(len(found)) + 0.5) * spec.stride[1]
        inside = (expected >= centres[0]) & (expected <= centres[-1])
        torch.testing.assert_close(found[inside], expected[inside])


@pytest.mark.parametrize("strides", [(8, 4), (4, 4), (8, 12)])
def test_strides_that_are_near_or_out_of_order_are_refused(strides: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="double"):
        build([16], strides=strides)


def test_levels_of_any_strides_can_be_asked_for() -> None:
    neck = build([16], strides=(4, 12, 48))
    assert [tuple(x.shape) for x in neck(inputs([16]), SIZE)] == [expected_shape(s, 2, SIZE) for s in neck.specs]


def test_a_backbone_without_maps_is_refused() -> None:
    with pytest.raises(ConfigError, match="maps"):
        NECKS.build({"type": "SimplePyramid"}, {"specs": ()})
