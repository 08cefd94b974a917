"""Multiscale Vision Transformers (MViT), versions 1 and 2.

Papers: https://arxiv.org/abs/2104.11227, https://arxiv.org/abs/2112.01526
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densevit.backbones.mvit_keys import official_names
from densevit.errors import ConfigError
from densevit.features import (
    Backbone,
    Features,
    FeatureSpec,
    check_frozen,
    check_heads,
    check_images,
    check_maps,
    select_maps,
)
from densevit.layers import (
    CONVS,
    MLP,
    DropPath,
    PoolingAttention,
    ceil_div,
    drop_path_rates,
    fit_positions,
    freeze,
    init_linear,
    resize_positions,
    resize_table,
    to_map,
    to_tokens,
)
from densevit.registry import BACKBONES

_MAX_POOL = {2: F.max_pool2d, 3: F.max_pool3d}
VERSION1 = {
    "widen_in_mlp": True,
    "class_token": True,
    "absolute_positions": True,
    "relative_positions": False,
    "residual_pooling": False,
}


class MultiscaleBlock(nn.Module):
    """Pooling attention, then a feed-forward layer; either may change the width of the tokens.

    Args:
        attn: Attention, which knows its widths and its strides.
        out_dim: Channels of the output.
        mlp_ratio: Width of the feed-forward layer over that of what attention gives.
        drop_path: Rate of stochastic depth.
    """

    def __init__(self, attn: PoolingAttention, out_dim: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        dim, attn_dim = attn.qkv.in_features, attn.proj.out_features
        self.widen_in_attention = dim != attn_dim
        self.widen_in_mlp = attn_dim != out_dim
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attn
        self.norm2 = nn.LayerNorm(attn_dim, eps=1e-6)
        self.mlp = MLP(attn_dim, int(attn_dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)
        if self.widen_in_mlp:
            self.mlp.fc2 = nn.Linear(self.mlp.fc1.out_features, out_dim)
        if self.widen_in_attention or self.widen_in_mlp:
            self.proj = nn.Linear(dim, out_dim)

    def forward(self, x: Tensor, grid: Sequence[int]) -> tuple[Tensor, Sequence[int]]:
        y = self.norm1(x)
        skip = self._pool(self.proj(y) if self.widen_in_attention else x, grid)
        y, grid = self.attn(y, grid)
        x = skip + self.drop_path(y)
        y = self.norm2(x)
        skip = self.proj(y) if self.widen_in_mlp else x
        return skip + self.drop_path(self.mlp(y)), grid

    def _pool(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        """Take the maximum of the cells that the strided queries stand for."""
        stride, prefix = self.attn.strides["q"], self.attn.prefix
        if math.prod(stride) == 1:
            return x
        kernel = [s + 1 if s > 1 else 1 for s in stride]
        cells = to_map(x[:, prefix:], grid)
        cells = to_tokens(_MAX_POOL[len(grid)](cells, kernel, stride, [k // 2 for k in kernel]))
        return torch.cat([x[:, :prefix], cells], dim=1) if prefix else cells


@BACKBONES.register_module()
class MViT(Backbone):
    """Stages of pooling attention with strides 4, 8, 16, 32 in the plane. Defaults and names are those of MViTv2-T.

    This one sees images; `VideoMViT` is the same with an axis of time.

    Args:
        in_channels: Channels of the input.
        img_size: Size of the input for which positions are learnt: pixels of a square image, or a number per axis.
            At other sizes they are interpolated.
        dims: Channels of each stage.
        depths: Blocks of each stage.
        num_heads: Attention heads of each stage.
        mlp_ratio: Width of the feed-forward layers over that of the tokens.
        patch_kernel: Kernel of the first convolution per axis.
        patch_stride: Its stride.
        pool_kernel: Kernel of the pooling in attention.
        q_stride: Stride of the queries in the first block of each stage but the first.
        kv_stride: Stride of keys and values in the first stage; it shrinks as the stages shrink the grid.
        widen_in_mlp: Change the width in the last feed-forward layer of a stage, not in the first attention of the
            next. Maps of all stages but the last then have the width of the next stage.
        relative_positions: Learn relative positions.
        residual_pooling: Add pooled queries to the output of attention; queries are then pooled in every block.
        class_token: Carry a token on which to classify; if not, the mean of the last tokens serves.
        absolute_positions: Learn absolute positions.
        window: Cells per axis of the windows of the first stage; like the grid, they shrink from stage to stage. Blocks
            attend within windows, but the last of each stage but the first to everything, at the stride of keys and
            values of the stage before: hybrid window attention (v2, section 4.2). By default there are no windows.
        drop_path: Rate of stochastic depth at the last block.
        out_indices: Stages to return; those after the last of them are not built. By default all, none with ``token``.
        token: Return the class token, or the mean of the last tokens, after the final norm.
        frozen_stages: Number of first stages that are not trained.

    Raises:
        ConfigError: Settings that contradict each other.
    """

    axes = 2
    dense_only = tuple(f"scale{level}_norm." for level in range(2, 6))
    weights_licence = "Apache-2.0"

    def __init__(
        self,
        in_channels: int = 3,
        img_size: int | Sequence[int] = 224,
        dims: Sequence[int] = (96, 192, 384, 768),
        depths: Sequence[int] = (1, 2, 5, 2),
        num_heads: Sequence[int] = (1, 2, 4, 8),
        mlp_ratio: float = 4.0,
        patch_kernel: Sequence[int] = (7, 7),
        patch_stride: Sequence[int] = (4, 4),
        pool_kernel: Sequence[int] = (3, 3),
        q_stride: Sequence[int] = (2, 2),
        kv_stride: Sequence[int] = (4, 4),
        widen_in_mlp: bool = False,
        relative_positions: bool = True,
        residual_pooling: bool = True,
        class_token: bool = False,
        absolute_positions: bool = False,
        window: Sequence[int] = (),
        drop_path: float = 0.1,
        out_indices: Sequence[int] | None = None,
        token: bool = False,
        frozen_stages: int = 0,
    ) -> None:
        super().__init__()
        per_axis = (patch_kernel, patch_stride, pool_kernel, q_stride, kv_stride, *([window] if window else []))
        _check(self.axes, dims, depths, num_heads, per_axis)
        size = (img_size,) * self.axes if isinstance(img_size, int) else tuple(img_size)
        self.in_channels, self.img_size = in_channels, size[-1]
        self.out_indices = select_maps(len(dims), out_indices, token)
        check_maps("MViT", len(dims), self.out_indices, token)
        built = len(dims) if token else max(self.out_indices) + 1
        check_frozen("MViT", built, frozen_stages)
        self.depths = tuple(depths[:built])
        self.token_channels = dims[-1] if token else 0
        self.patch_embed = nn.Sequential(OrderedDict(proj=_patches(in_channels, dims[0], patch_kernel, patch_stride)))
        self.grid = _shrink(size, patch_stride)
        self.cls_token = learnt(1, 1, dims[0]) if class_token else None
        self.absolute_positions = absolute_positions
        if absolute_positions:
            self._learn_positions(dims[0])
        strides = [tuple(p * q**i for p, q in zip(patch_stride, q_stride, strict=True)) for i in range(len(dims))]
        channels = (*dims[1:], dims[-1]) if widen_in_mlp else dims
        self.specs = tuple(FeatureSpec(channels[i], strides[i]) for i in self.out_indices)
        self.divisor, self.min_size = strides[-1], strides[built - 1][-1]
        attention = partial(PoolingAttention, kernel=pool_kernel, residual=residual_pooling, class_token=class_token)
        self.blocks = nn.ModuleList()
        dim, rates = dims[0], drop_path_rates(drop_path, depths)
        tables = self.grid if relative_positions else ()
        for i, stage in enumerate(_pooling(self.depths, q_stride, kv_stride, window, tables)):
            for j, pooling in enumerate(stage):
                attn = attention(dim, dims[i], num_heads[i], **pooling)
                dim = channels[i] if j == len(stage) - 1 else dims[i]
                self.blocks.append(MultiscaleBlock(attn, dim, mlp_ratio, rates[i][j]))
        for i in self.out_indices:
            self.add_module(f"scale{i + 2}_norm", nn.LayerNorm(channels[i], eps=1e-6))
        if token:
            self.norm = nn.LayerNorm(dims[-1], eps=1e-6)
        self.apply(init_linear)
        self._freeze(frozen_stages)

    def forward(self, x: Tensor) -> Features:
        self._check_input(x)
        x, grid = self._embed(x)
        maps, first, prefix = [], 0, int(self.cls_token is not None)
        for i, depth in enumerate(self.depths):
            for block in self.blocks[first : first + depth]:
                x, grid = self.run(block, x, grid)
            first += depth
            if i in self.out_indices:
                maps.append(to_map(self.get_submodule(f"scale{i + 2}_norm")(x[:, prefix:]), grid))
        token = None
        if self.token_channels:
            token = self.norm(x[:, 0]) if prefix else self.norm(x).mean(dim=1)
        return Features(tuple(maps), token)

    def layer_groups(self) -> list[tuple[str, ...]]:
        stem = ("patch_embed.", "cls_token", "pos_embed")
        return [stem, *((f"blocks.{i}.",) for i in range(len(self.blocks))), ("norm.", *self.dense_only)]

    def adapt(self, key: str, value: Tensor) -> Tensor:
        if ".rel_pos_" in key:
            return resize_table(value, len(self.get_parameter(key)))
        if key == "pos_embed":
            return fit_positions(value, self.grid, prefix=int(self.cls_token is not None))
        return value

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the layouts of timm and of torchvision; make 2-D what the release keeps as 3-D kernels of length 1."""
        return official_names(state)

    def _embed(self, x: Tensor) -> tuple[Tensor, Sequence[int]]:
        x = self.patch_embed(x)
        grid, x = x.shape[2:], to_tokens(x).contiguous()
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        return x + self._positions(grid) if self.absolute_positions else x, grid

    def _check_input(self, x: Tensor) -> None:
        check_images(x, self.in_channels, self.min_size)

    def _learn_positions(self, dim: int) -> None:
        self.pos_embed = learnt(1, int(self.cls_token is not None) + math.prod(self.grid), dim)

    def _positions(self, grid: Sequence[int]) -> Tensor:
        """Return the absolute positions of all tokens, ``(1, L, C)``."""
        return resize_positions(self.pos_embed, self.grid, grid, prefix=int(self.cls_token is not None))

    def _freeze(self, stages: int) -> None:
        if stages == 0:
            return
        freeze(self.patch_embed)
        for p in self.parameters(recurse=False):  # the class token, positions
            p.requires_grad_(False)
        for block in self.blocks[: sum(self.depths[:stages])]:
            freeze(block)
        for i in set(self.out_indices) & set(range(stages)):
            freeze(self.get_submodule(f"scale{i + 2}_norm"))


def _pooling(
    depths: Sequence[int],
    q_stride: Sequence[int],
    kv_stride: Sequence[int],
    window: Sequence[int],
    tables: Sequence[int],
) -> list[list[dict[str, Any]]]:
    """Return, by stage and block, how attention pools, where it is windowed and for which grid it learns positions."""
    stages: list[list[dict[str, Any]]] = []
    kv_strides = [[max(kv // q**i, 1) for kv, q in zip(kv_stride, q_stride, strict=True)] for i in range(len(depths))]
    for i, depth in enumerate(depths):
        stages.append([])
        for j in range(depth):
            stride = q_stride if i > 0 and j == 0 else (1,) * len(q_stride)
            whole = bool(window) and i > 0 and j == depth - 1
            pooling = {"q_stride": stride, "kv_stride": kv_strides[i - whole], "window": () if whole else window}
            stages[i].append({**pooling, "relative_grid": tables})
            window = window and _shrink(window, stride)
            # Rounded down, as the official tables are; at run time they are resized to the real grid.
            tables = tables and tuple(max(n // s, 1) for n, s in zip(tables, stride, strict=True))
    return stages


def _patches(in_channels: int, dim: int, kernel: Sequence[int], stride: Sequence[int]) -> nn.Module:
    return CONVS[len(kernel)](in_channels, dim, tuple(kernel), tuple(stride), tuple(k // 2 for k in kernel))


def learnt(*shape: int) -> nn.Parameter:
    """Return a parameter that is neither a weight nor a bias of a layer, initialised as such are here."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))


def _shrink(grid: Sequence[int], stride: Sequence[int]) -> tuple[int, ...]:
    return tuple(ceil_div(n, s) for n, s in zip(grid, stride, strict=True))


def _check(
    axes: int,
    dims: Sequence[int],
    depths: Sequence[int],
    num_heads: Sequence[int],
    per_axis: Sequence[Sequence[int]],
) -> None:
    if not len(dims) == len(depths) == len(num_heads) or not 0 < len(dims) <= 4:
        raise ConfigError("MViT has one to four stages: give as many dims, depths and num_heads")
    if {len(setting) for setting in per_axis} != {axes}:
        kind, count = ("images", "two") if axes == 2 else ("videos", "three")
        raise ConfigError(
            f"this MViT sees {kind}: give each of patch_kernel, patch_stride, pool_kernel, q_stride and kv_stride "
            f"{count} numbers, and window as many or none"
        )
    check_heads("MViT", dims, num_heads)


@BACKBONES.register_module()
def mvitv2_xs(**options: Any) -> MViT:
    """3.4M parameters: ours, whose weights `mvitv2_xs_16` starts from."""
    return MViT(**{"dims": (48, 96, 192, 384), "depths": (1, 2, 4, 1), **options})


@BACKBONES.register_module()
def mvitv2_t(**options: Any) -> MViT:
    """23.4M parameters."""
    return MViT(**options)


@BACKBONES.register_module()
def mvitv2_s(**options: Any) -> MViT:
    """34.1M parameters."""
    return MViT(**{"depths": (1, 2, 11, 2), **options})


@BACKBONES.register_module()
def mvitv2_b(**options: Any) -> MViT:
    """50.7M parameters."""
    return MViT(**{"depths": (2, 3, 16, 3), "drop_path": 0.3, **options})


@BACKBONES.register_module()
def mvitv2_l(**options: Any) -> MViT:
    """216.8M parameters."""
    large: dict[str, Any] = {"dims": (144, 288, 576, 1152), "num_heads": (2, 4, 8, 16), "depths": (2, 6, 36, 4)}
    return MViT(**{**large, "widen_in_mlp": True, "drop_path": 0.5, **options})


@BACKBONES.register_module()
def mvitv2_t_window(**options: Any) -> MViT:
    """23.4M parameters, with hybrid window attention for the large images of detection."""
    return mvitv2_t(**{"window": (56, 56), "drop_path": 0.2, **options})


@BACKBONES.register_module()
def mvitv2_s_window(**options: Any) -> MViT:
    """34.1M parameters, for detection."""
    return mvitv2_s(**{"window": (56, 56), "drop_path": 0.2, **options})


@BACKBONES.register_module()
def mvitv2_b_window(**options: Any) -> MViT:
    """50.7M parameters, for detection."""
    return mvitv2_b(**{"window": (56, 56), "drop_path": 0.4, **options})


@BACKBONES.register_module()
def mvitv2_l_window(**options: Any) -> MViT:
    """212.5M parameters, for detection. As officially, the width changes in attention, unlike that of `mvitv2_l`."""
    return mvitv2_l(**{"window": (56, 56), "widen_in_mlp": False, **options})


def _version1(depths: Sequence[int], options: dict[str, Any]) -> MViT:
    return MViT(**{"depths": depths, **VERSION1, **options})


@BACKBONES.register_module()
def mvitv1_b(**options: Any) -> MViT:
    """36.2M parameters."""
    return _version1((1, 2, 11, 2), options)


@BACKBONES.register_module()
def mvitv1_b_24_wide(**options: Any) -> MViT:
    """72.0M parameters, for images of 320 x 320."""
    wide = {"dims": (112, 224, 448, 896), "img_size": 320, "drop_path": 0.3}
    return _version1((2, 3, 16, 3), {**wide, **options})
