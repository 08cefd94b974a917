"""CMT: convolutional neural networks meet vision transformers.

Paper: https://arxiv.org/abs/2107.06263
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densevit.errors import ConfigError
from densevit.features import (
    Backbone,
    Features,
    FeatureSpec,
    check_axes,
    check_frozen,
    check_heads,
    check_input,
    check_maps,
    select_maps,
)
from densevit.layers import (
    BATCH_NORMS,
    CONVS,
    POINTWISE_CONVS,
    ChannelsLastGELU,
    DepthwiseReducedAttention,
    DropPath,
    InvertedResidualFFN,
    ceil_div,
    channels_last,
    drop_path_rates,
    freeze,
    inflate_all,
    init_linear,
    pad_to_multiple,
    resize_bias,
    to_map,
    to_tokens,
)
from densevit.registry import BACKBONES

STAGES = "abcd"
TOKEN_CHANNELS = 1280


class PatchEmbed(nn.Module):
    """Convolution of two cells along each axis into one, then LayerNorm. The last cells of an odd side are repeated."""

    def __init__(self, in_channels: int, dim: int, axes: int) -> None:
        super().__init__()
        self.proj = CONVS[axes](in_channels, dim, 2, 2)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(pad_to_multiple(x, 2, mode="replicate"))
        return to_map(self.norm(to_tokens(x)), x.shape[2:])


class CMTBlock(nn.Module):
    """Local perception by a depthwise convolution, attention, feed-forward layer; on channels-last maps."""

    def __init__(self, dim: int, num_heads: int, reduction: int, mlp_ratio: float, drop_path: float, axes: int) -> None:
        super().__init__()
        self.proj = CONVS[axes](dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = DepthwiseReducedAttention(dim, num_heads, reduction, axes)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = InvertedResidualFFN(dim, int(dim * mlp_ratio), axes)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        grid = x.shape[2:]
        tokens = to_tokens(x + self.proj(x))
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), grid, bias))
        return to_map(tokens, grid) + self.drop_path(self.mlp(to_map(self.norm2(tokens), grid)))


@BACKBONES.register_module()
class CMT(Backbone):
    """Four stages with strides 4, 8, 16, 32, or half of these with ``stem_stride=1``. The defaults are CMT-S.

    The maps are the outputs of the stages as they are: the official release has no norms for dense tasks. Parameters
    are named as there. The position biases are learnt for the grids of ``img_size`` and resized for any other.

    With ``axes=3`` it is ours for volumes ``(N, C, D, H, W)``: the same layers along three axes. Weights for images,
    loaded into it, see of each volume the slices along the last two axes, until they learn. The biases of the first
    stage grow with the sixth power of ``img_size``, which should be that of the crops to train on.

    Args:
        in_channels: Channels of the input.
        dims: Channels of each stage.
        depths: Blocks of each stage.
        num_heads: Attention heads of each stage.
        reductions: Factor per stage by which the grid of keys and values is shrunk.
        mlp_ratio: Width of the feed-forward layers over that of the tokens.
        stem_channels: Channels of the stem.
        stem_stride: Stride of the stem; 1 suits images of 32 x 32.
        img_size: Side, or size along each axis, of the input that the position biases are for.
        drop_path: Rate of stochastic depth at the last block.
        out_indices: Stages to return; those after the last of them are not built. By default all, none with ``token``.
        token: Return the projected and averaged last map, on which the official model classifies.
        frozen_stages: Number of first stages that are not trained; the stem belongs to the first.
        axes: 2 for images, 3 for volumes.

    Raises:
        ConfigError: Settings that contradict each other.
    """

    weights_licence = "MIT"

    def __init__(
        self,
        in_channels: int = 3,
        dims: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (3, 3, 16, 3),
        num_heads: Sequence[int] = (1, 2, 4, 8),
        reductions: Sequence[int] = (8, 4, 2, 1),
        mlp_ratio: float = 4.0,
        stem_channels: int = 32,
        stem_stride: int = 2,
        img_size: int | Sequence[int] = 224,
        drop_path: float = 0.1,
        out_indices: Sequence[int] | None = None,
        token: bool = False,
        frozen_stages: int = 0,
        axes: int = 2,
    ) -> None:
        super().__init__()
        check_axes("CMT", axes)
        if not len(dims) == len(depths) == len(num_heads) == len(reductions) == len(STAGES):
            raise ConfigError(f"CMT has {len(STAGES)} stages: give as many dims, depths, num_heads and reductions")
        self.in_channels, self.axes = in_channels, axes
        self.depths, self.reductions = tuple(depths), tuple(reductions)
        self.out_indices = select_maps(len(STAGES), out_indices, token)
        check_maps("CMT", len(STAGES), self.out_indices, token)
        check_heads("CMT", dims, num_heads)
        self.num_stages = len(STAGES) if token else max(self.out_indices) + 1
        check_frozen("CMT", self.num_stages, frozen_stages)
        strides = [stem_stride * 2 ** (i + 1) for i in range(len(STAGES))]
        self.specs = tuple(FeatureSpec(dims[i], (strides[i],) * axes) for i in self.out_indices)
        self.divisor = (strides[-1],) * axes
        self.min_size = strides[self.num_stages - 1]
        for i, channels in enumerate((in_channels, stem_channels, stem_channels), start=1):
            conv = CONVS[axes](channels, stem_channels, 3, stem_stride if i == 1 else 1, padding=1)
            self.add_module(f"stem_conv{i}", conv)
            self.add_module(f"stem_norm{i}", BATCH_NORMS[axes](stem_channels))
        self.act = ChannelsLastGELU()
        self.space = (img_size,) * axes if isinstance(img_size, int) else tuple(img_size)
        self.img_size, self.num_frames = self.space[-1], self.space[0] if axes == 3 else 0
        self.strides = strides
        rates, widths = drop_path_rates(drop_path, depths), (stem_channels, *dims)
        for i in range(self.num_stages):
            queries, keys = self._grids(i, self.space)
            bias = torch.randn(num_heads[i], math.prod(queries), math.prod(keys))
            blocks = [CMTBlock(dims[i], num_heads[i], reductions[i], mlp_ratio, rate, axes) for rate in rates[i]]
            self.register_parameter(f"relative_pos_{STAGES[i]}", nn.Parameter(bias))
            self.add_module(f"patch_embed_{STAGES[i]}", PatchEmbed(widths[i], dims[i], axes))
            self.add_module(f"blocks_{STAGES[i]}", nn.ModuleList(blocks))
        if token:
            self.token_channels = TOKEN_CHANNELS
            self._fc = POINTWISE_CONVS[axes](dims[-1], TOKEN_CHANNELS)
            self._bn = BATCH_NORMS[axes](TOKEN_CHANNELS)
        self.apply(_init_weights)
        self._freeze(frozen_stages)

    def forward(self, x: Tensor) -> Features:
        check_input(x, self.in_channels, self.axes, self.min_size)
        space = x.shape[2:]
        x = channels_last(x)
        for conv, norm in self._stem():
            x = norm(self.act(conv(x)))
        maps = []
        for i in range(self.num_stages):
            bias, embed, blocks = self._stage(i)
            x = embed(x)
            resized = self._resize(bias, i, self.space, space)
            for block in blocks:
                x = self.run(block, x, resized)
            if i in self.out_indices:
                maps.append(x)
        if not self.token_channels:
            return Features(tuple(maps))
        return Features(tuple(maps), F.silu(self._bn(self._fc(x))).flatten(2).mean(dim=2))

    def layer_groups(self) -> list[tuple[str, ...]]:
        groups: list[tuple[str, ...]] = [("stem_",)]
        for i, stage in enumerate(STAGES[: self.num_stages]):
            groups += [(f"relative_pos_{stage}", f"patch_embed_{stage}.")]
            groups += [(f"blocks_{stage}.{j}.",) for j in range(self.depths[i])]
        return [*groups, ("_fc.", "_bn.")] if self.token_channels else groups

    def adapt(self, key: str, value: Tensor) -> Tensor:
        """Resize position biases that are for squares or cubes of another size."""
        own = dict(self.named_parameters()).get(key)
        if own is None or not key.startswith("relative_pos_") or own.shape == value.shape:
            return value
        return self._resize_cube(value, STAGES.index(key[-1]), self.space)

    def from_images(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Complete weights for images, so that a volume of equal slices has in every slice the features of the image.

        The slices are those along the last two axes. Each query has the same biases to the keys of all slices.
        """
        stem = state.get("stem_conv1.weight")
        if self.axes == 2 or stem is None or stem.ndim != 4:
            return state
        completed = inflate_all(state, self.state_dict())
        for i, stage in enumerate(STAGES[: self.num_stages]):
            bias = state.get(f"relative_pos_{stage}")
            if bias is not None:
                queries, keys = (grid[0] for grid in self._grids(i, self.space))
                bias = self._resize_cube(bias, i, self.space[1:])
                completed[f"relative_pos_{stage}"] = bias.repeat(1, queries, keys)
        return completed

    def _grids(self, i: int, space: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        """Return the grids of queries and of keys of a stage for an input of size ``space``."""
        queries = tuple(ceil_div(n, self.strides[i]) for n in space)
        return queries, tuple(ceil_div(n, self.reductions[i]) for n in queries)

    def _resize(self, bias: Tensor, i: int, old: Sequence[int], new: Sequence[int]) -> Tensor:
        """Return the position biases of a stage, which are for inputs of size ``old``, for inputs of size ``new``."""
        step = [before / after for before, after in zip(old, new, strict=True)]
        return resize_bias(bias, self._grids(i, old), self._grids(i, new), step)

    def _resize_cube(self, bias: Tensor, i: int, space: Sequence[int]) -> Tensor:
        """Return position biases for ``space`` if they are for a square or cube; others as they are."""
        old = (round(bias.shape[1] ** (1 / len(space))) * self.strides[i],) * len(space)
        known = tuple(bias.shape[1:]) == tuple(map(math.prod, self._grids(i, old)))
        return self._resize(bias, i, old, space) if known else bias

    def _stem(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(getattr(self, f"stem_conv{i}"), getattr(self, f"stem_norm{i}")) for i in (1, 2, 3)]

    def _stage(self, i: int) -> tuple[nn.Parameter, nn.Module, nn.ModuleList]:
        names = (f"{part}_{STAGES[i]}" for part in ("relative_pos", "patch_embed", "blocks"))
        bias, embed, blocks = (getattr(self, name) for name in names)
        return bias, embed, blocks

    def _freeze(self, stages: int) -> None:
        for conv, norm in self._stem() if stages else []:
            freeze(conv)
            freeze(norm)
        for i in range(stages):
            bias, embed, blocks = self._stage(i)
            bias.requires_grad_(False)
            freeze(embed)
            freeze(blocks)


def _init_weights(module: nn.Module) -> None:
    """Unlike elsewhere, the fan-out of a depthwise convolution is counted over all channels, as officially."""
    init_linear(module)
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@BACKBONES.register_module()
def cmt_ti(**options: Any) -> CMT:
    """7.7M parameters, 9.5M with the token and the classifier of ImageNet; made for 160 x 160."""
    sizes = {"dims": (46, 92, 184, 368), "depths": (2, 2, 10, 2), "mlp_ratio": 3.6, "stem_channels": 16}
    return CMT(**{**sizes, "img_size": 160, **options})


@BACKBONES.register_module()
def cmt_xs(**options: Any) -> CMT:
    """13.4M parameters, 15.2M with the token and the classifier of ImageNet; made for 192 x 192."""
    sizes = {"dims": (52, 104, 208, 416), "depths": (3, 3, 12, 3), "mlp_ratio": 3.77, "stem_channels": 16}
    return CMT(**{**sizes, "img_size": 192, "drop_path": 0.08, **options})


@BACKBONES.register_module()
def cmt_s(**options: Any) -> CMT:
    """24.3M parameters, 26.3M with the token and the classifier of ImageNet; made for 224 x 224."""
    return CMT(**options)


@BACKBONES.register_module()
def cmt_b(**options: Any) -> CMT:
    """43.7M parameters, 45.7M with the token and the classifier of ImageNet; made for 256 x 256."""
    sizes = {"dims": (76, 152, 304, 608), "depths": (4, 4, 20, 4), "stem_channels": 38}
    return CMT(**{**sizes, "img_size": 256, "drop_path": 0.25, **options})


@BACKBONES.register_module()
def cmt_scaled(phi: float = 0.0, **options: Any) -> CMT:
    """CMT-S scaled to about ``2.5 ** phi`` times its cost by the rule of the paper.

    Depth grows by ``1.2 ** phi``, width by ``1.3 ** phi`` and image size by ``1.15 ** phi``, rounded to whole blocks,
    even widths of the first stage, and multiples of 32 pixels; the stem has half the width of the first stage. The
    published Ti, XS and B (``phi`` -2, -1 and 1) have the same image sizes, but depths and widths rounded by hand.

    Args:
        phi: Exponent of the scale; CMT-S is 0.
        **options: Arguments of `CMT`.
    """
    width = 2 * _nearest(32 * 1.3**phi)
    sizes = {
        "dims": tuple(width * n for n in (1, 2, 4, 8)),
        "depths": tuple(max(_nearest(n * 1.2**phi), 1) for n in (3, 3, 16, 3)),
        "stem_channels": width // 2,
        "img_size": 32 * max(_nearest(7 * 1.15**phi), 1),
    }
    return CMT(**{**sizes, **options})


def _nearest(x: float) -> int:
    return int(x + 0.5)
