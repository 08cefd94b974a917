"""Attention of CMT, with keys and values on a coarser grid and a learnt bias of positions.

Paper: https://arxiv.org/abs/2107.06263
"""

from collections.abc import Sequence

from torch import Tensor, nn

from densevit.layers.attention import attend_biased
from densevit.layers.by_axes import BATCH_NORMS, CONVS
from densevit.layers.pad import pad_to_multiple
from densevit.layers.shape import to_map, to_tokens


class DepthwiseReducedAttention(nn.Module):
    """Attention whose keys and values come from the grid shrunk ``reduction`` times by a depthwise convolution.

    The last cells of a grid are repeated until ``reduction`` divides its sides.
    """

    def __init__(self, dim: int, num_heads: int, reduction: int, axes: int = 2) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.reduction = reduction
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        if reduction > 1:
            conv = CONVS[axes](dim, dim, reduction, reduction, groups=dim)
            self.sr = nn.Sequential(conv, BATCH_NORMS[axes](dim))

    def forward(self, x: Tensor, grid: Sequence[int], bias: Tensor) -> Tensor:
        """Map tokens ``(N, L, C)`` to tokens; ``bias`` is ``(heads, L, S)``."""
        context = x
        if self.reduction > 1:
            context = to_tokens(self.sr(pad_to_multiple(to_map(x, grid), self.reduction, mode="replicate")))
        q, k, v = (
            y.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for y in (self.q(x), self.k(context), self.v(context))
        )
        x = attend_biased(q, k, v, bias[None])
        return self.proj(x.transpose(1, 2).flatten(2))
