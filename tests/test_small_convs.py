"""Convolutions over small maps are computed in fp32 under autocast on CPUs, and no others."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densevit.layers import channels_last
from densevit.small_convs import mend_small_convs

mend_small_convs()

# With torch 2.14 on a CPU with AVX512_BF16 the first four are wrong in bf16 by about as much as they are large.
SMALL = {
    "depthwise, deeper than the map": (nn.Conv3d(32, 32, 3, padding=1, groups=32), (2, 8, 8)),
    "deeper than the map": (nn.Conv3d(32, 32, 3, padding=1), (2, 8, 8)),
    "one cell of output": (nn.Conv2d(16, 48, 8, stride=8), (8, 8)),
    "stride beyond the map": (nn.Conv3d(24, 24, 3, stride=(1, 8, 8), padding=1), (4, 16, 4)),
    "padding by name": (nn.Conv2d(8, 8, 3, padding="same", bias=False), (3, 9)),
}
LARGE = {
    "image": (nn.Conv2d(8, 8, 3, padding=1), (4, 4)),
    "volume": (nn.Conv3d(8, 8, 3, padding=1, groups=8), (4, 4, 4)),
    "points": (nn.Conv3d(8, 8, 1), (1, 1, 1)),
}


def outputs_and_gradients(conv: nn.Module, x: Tensor, autocast: bool) -> list[Tensor]:
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = conv(x)
    torch.manual_seed(1)
    grad = torch.randn(y.shape).bfloat16().to(y.dtype)  # the same in both
    return [y, *torch.autograd.grad(y, [x, *conv.parameters()], grad)]


def relative_errors(ours: list[Tensor], true: list[Tensor]) -> list[float]:
    return [((a.float() - b).abs().max() / b.abs().max()).item() for a, b in zip(ours, true, strict=True)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, "channels last"])
@pytest.mark.parametrize(("conv", "size"), SMALL.values(), ids=SMALL)
def test_small_maps_have_the_gradients_of_fp32(conv: nn.Module, size: tuple[int, ...], layout: Any) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, conv.in_channels, *size)
    x = (channels_last(x) if layout == "channels last" else x).requires_grad_()
    ours = outputs_and_gradients(conv, x, autocast=True)
    errors = relative_errors(ours, outputs_and_gradients(conv, x, autocast=False))
    assert ours[0].dtype == torch.bfloat16
    assert errors[0] < 4e-3  # rounded to bf16
    assert max(errors[1:]) < 1e-5


@pytest.mark.parametrize(("conv", "size"), LARGE.values(), ids=LARGE)
def test_others_are_computed_in_bf16_as_ever(conv: nn.Module, size: tuple[int, ...]) -> None:
    x = torch.randn(2, 8, *size)
    low = [t.bfloat16() for t in (x, conv.weight, conv.bias)]
    convolve = F.conv2d if len(size) == 2 else F.conv3d
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(conv(x), convolve(*low, conv.stride, conv.padding, 1, conv.groups))


def test_functions_without_a_stride_are_mended_too() -> None:
    x, weight = torch.randn(1, 4, 3, 3), torch.randn(4, 4, 3, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = F.conv2d(x, weight)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), F.conv2d(x, weight), rtol=4e-3, atol=1e-5)


def test_other_precisions_are_kept() -> None:
    conv, x = nn.Conv2d(4, 4, 3, padding=1), torch.randn(1, 4, 2, 2)
    assert conv(x).dtype == torch.float32
    with torch.autocast("cpu", torch.float16):
        assert conv(x).dtype == torch.float16
    with torch.autocast("cpu", torch.bfloat16):
        assert conv.double()(x.double()).dtype == torch.float64


def test_they_compile_at_any_size() -> None:
    torch.compiler.reset()
    conv = nn.Conv2d(4, 4, 3, padding=1)
    compiled = torch.compile(conv, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch.autocast("cpu", torch.bfloat16):
        for side in (2, 3, 8, 9):
            x = torch.randn(1, 4, side, side, requires_grad=True)
            torch.testing.assert_close(compiled(x), conv(x))
            compiled(x).sum().backward()
