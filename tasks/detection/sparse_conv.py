"""A convolution at some cells of a map only."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_at(conv: nn.Conv2d, x: Tensor, image: Tensor, cell: Tensor) -> Tensor:
    """Return ``(n, out)``, in fp32: what a convolution that keeps the grid gives at n cells.

    Where few cells have a gradient, as of the anchors that a proposal network samples, this saves nearly all of the
    backward pass.

    Args:
        conv: Of stride 1, an odd kernel and half of it as padding.
        x: ``(N, C, h, w)``.
        image: ``(n,)``, which of the N maps.
        cell: ``(n,)``, which of its cells, counted row by row.
    """
    height, width = x.shape[2:]
    offsets = [torch.arange(k, device=x.device) - k // 2 for k in conv.kernel_size]
    rows = (cell // width)[:, None, None] + offsets[0][:, None]
    columns = (cell % width)[:, None, None] + offsets[1]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    taken = x[image[:, None, None], :, rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
    taken = (taken * inside[..., None]).float().permute(0, 3, 1, 2)
    return F.linear(taken.flatten(1), conv.weight.flatten(1), conv.bias)
