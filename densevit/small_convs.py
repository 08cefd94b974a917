"""Convolutions that oneDNN computes wrongly in bf16 on CPUs."""

import warnings
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

KINDS = ("conv2d", "conv2d.padding", "conv3d", "conv3d.padding")


@cache
def mend_small_convs() -> torch.library.Library:
    """Make CPUs convolve in fp32 under autocast where a kernel or its stride spans the map along an axis.

    There oneDNN gives gradients of the weights, and for some widths outputs, that are off by as much as they are
    large, or not finite, whichever module asks for them. All other convolutions run as they did. Registered once for
    the process, at the place that PyTorch has for it; the return value keeps it alive.
    """
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators")  # torch 2.10 tells users of it
        for kind in KINDS:
            native = torch.library.get_kernel(f"aten::{kind}", "AutocastCPU")
            library.impl(kind, partial(_convolve, kind, native), "AutocastCPU", with_keyset=True, allow_override=True)
    return library


def _convolve(
    kind: str, native: Any, keys: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None, *geometry: Any
) -> Tensor:
    kernel, sides = weight.shape[2:], x.shape[2 - weight.ndim :]
    strides = geometry[0] if geometry else (1,) * len(kernel)
    small = any(k > 1 and max(k, s) >= side for k, s, side in zip(kernel, strides, sides, strict=True))
    if x.dtype == torch.float64 or not small:
        return native.call_boxed(keys, x, weight, bias, *geometry)
    name, _, overload = kind.partition(".")
    convolve = getattr(getattr(torch.ops.aten, name), overload or "default")
    with torch.autocast("cpu", enabled=False):
        y = convolve(x.float(), weight.float(), None if bias is None else bias.float(), *geometry)
    return y.to(torch.get_autocast_dtype("cpu"))
