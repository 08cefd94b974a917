"""Multi-head pooling attention.

Papers: https://arxiv.org/abs/2104.11227, https://arxiv.org/abs/2112.01526
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densevit.errors import ConfigError
from densevit.layers.attention import attend_biased
from densevit.layers.by_axes import CONVS
from densevit.layers.rel_pos import AXES, relative_bias, table_length
from densevit.layers.shape import to_map, to_tokens
from densevit.layers.windows import from_windows, to_windows

_CONV = {2: F.conv2d, 3: F.conv3d}


class PoolingAttention(nn.Module):
    """Attention whose queries, keys and values are pooled on their grid by depthwise convolutions.

    The heads share the kernels. Queries that neither stride nor are a residual are not pooled.

    Args:
        dim: Channels of the input.
        out_dim: Channels of the output.
        num_heads: Number of heads, which divides ``out_dim``.
        kernel: Size of the pooling kernels per axis.
        q_stride: Stride per axis of the queries' pooling.
        kv_stride: Stride per axis of the keys' and values' pooling.
        residual: Add the pooled queries to what they gather.
        relative_grid: Grid of inputs for which relative positions are learnt, if any are; others interpolate them.
            Where strides do not divide it, the tables are those of the grid rounded down, as officially.
        class_token: Whether the first token belongs to no cell of the grid.
        window: Cells of the input per axis that attend to each other, after pooling; all of them by default. Windows
            begin at the first cell. The last ones are filled up with zeros, which are attended to, as officially.

    Raises:
        ConfigError: The strides do not divide the window, or there is a class token beside it.
    """

    def __init__(
        self,
        dim: int,
        out_dim: int,
        num_heads: int,
        kernel: Sequence[int],
        q_stride: Sequence[int],
        kv_stride: Sequence[int],
        residual: bool = True,
        relative_grid: Sequence[int] = (),
        class_token: bool = False,
        window: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if window and class_token:
            raise ConfigError("a class token lies in no window: leave out window, or class_token")
        for stride in (q_stride, kv_stride) if window else ():
            if any(w < 1 or w % s for w, s in zip(window, stride, strict=True)):
                raise ConfigError(f"strides of {tuple(stride)} do not divide a window of {tuple(window)} cells")
        self.num_heads = num_heads
        self.padding = tuple(k // 2 for k in kernel)
        self.strides = {"q": tuple(q_stride), "k": tuple(kv_stride), "v": tuple(kv_stride)}
        self.residual = residual
        self.prefix = int(class_token)
        self.window = tuple(window)
        self.qkv = nn.Linear(dim, 3 * out_dim)
        self.proj = nn.Linear(out_dim, out_dim)
        head_dim, conv = out_dim // num_heads, CONVS[len(kernel)]
        for name in "qkv" if residual or math.prod(q_stride) > 1 else "kv":
            pool = conv(head_dim, head_dim, tuple(kernel), groups=head_dim, bias=False)
            self.add_module(f"pool_{name}", pool)
            self.add_module(f"norm_{name}", nn.LayerNorm(head_dim, eps=1e-6))
        self.axes = AXES[-len(kernel) :] if relative_grid else ""
        for i, axis in enumerate(self.axes):
            queries, keys = (max(relative_grid[i] // stride[i], 1) for stride in (q_stride, kv_stride))
            table = torch.empty(table_length(queries, keys), head_dim)
            self.register_parameter(f"rel_pos_{axis}", nn.Parameter(nn.init.trunc_normal_(table, std=0.02)))

    def forward(self, x: Tensor, grid: Sequence[int]) -> tuple[Tensor, Sequence[int]]:
        """Map tokens ``(N, L, dim)`` on ``grid`` to ``(N, L', out_dim)`` on the grid of the queries, and that grid."""
        if self.strides["q"] == self.strides["k"] and hasattr(self, "pool_q"):
            (q, k, v), q_grid = self._pool("qkv", x, grid)
            k_grid = q_grid
        else:
            (q,), q_grid = self._pool("q", x, grid)
            (k, v), k_grid = self._pool("kv", x, grid)
        x = (self._attend_in_windows if self.window else self._attend)(q, k, v, q_grid, k_grid)
        if self.residual:
            x = x + q if not self.prefix else torch.cat([x[:, :, :1], x[:, :, 1:] + q[:, :, 1:]], dim=2)
        return self.proj(x.transpose(1, 2).flatten(2)), q_grid

    def _pool(self, names: str, x: Tensor, grid: Sequence[int]) -> tuple[list[Tensor], Sequence[int]]:
        """Project and pool those of queries, keys and values that share a stride, in one convolution.

        Returns:
            Each of ``names`` as ``(N, heads, L', head_dim)``, and the grid they are on.
        """
        dim = self.proj.in_features
        rows = slice("qkv".index(names) * dim, ("qkv".index(names) + len(names)) * dim)
        x = F.linear(x, self.qkv.weight[rows], self.qkv.bias[rows])
        if not hasattr(self, f"pool_{names[0]}"):
            return [x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)], grid
        repeats = (self.num_heads, *(1,) * (len(grid) + 1))
        kernels = torch.cat([getattr(self, f"pool_{name}").weight.repeat(repeats) for name in names])
        cells = to_map(x[:, self.prefix :], grid)
        cells = _CONV[len(grid)](cells, kernels, None, self.strides[names[0]], self.padding, groups=len(kernels))
        tokens = to_tokens(cells)
        if self.prefix:
            tokens = torch.cat([x[:, : self.prefix], tokens], dim=1)
        pooled = tokens.unflatten(-1, (len(names), self.num_heads, -1)).unbind(2)
        pooled = [self.get_submodule(f"norm_{name}")(t) for name, t in zip(names, pooled, strict=True)]
        return [t.transpose(1, 2) for t in pooled], cells.shape[2:]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, q_grid: Sequence[int], k_grid: Sequence[int]) -> Tensor:
        if not self.axes:
            return F.scaled_dot_product_attention(q, k, v)
        return attend_biased(q, k, v, self._bias(q, q_grid, k_grid))

    def _attend_in_windows(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Sequence[int], k_grid: Sequence[int]
    ) -> Tensor:
        q_window, k_window = (
            tuple(w // s for w, s in zip(self.window, self.strides[name], strict=True)) for name in "qk"
        )
        q = to_windows(q.transpose(1, 2), q_grid, q_window).transpose(1, 2)
        k, v = (to_windows(t.transpose(1, 2), k_grid, k_window).transpose(1, 2) for t in (k, v))
        x = self._attend(q, k, v, q_window, k_window)
        return from_windows(x.transpose(1, 2), q_grid, q_window).transpose(1, 2)

    def _bias(self, q: Tensor, q_grid: Sequence[int], k_grid: Sequence[int]) -> Tensor:
        tables = [getattr(self, f"rel_pos_{axis}") for axis in self.axes]
        bias = relative_bias(q[:, :, self.prefix :], tables, q_grid, k_grid)
        return F.pad(bias, (1, 0, 1, 0)) if self.prefix else bias
