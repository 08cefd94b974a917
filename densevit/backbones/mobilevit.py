"""MobileViT.

Paper: https://arxiv.org/abs/2110.02178
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densevit.backbones.rename import rename
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
from densevit.layers import DropPath, PointwiseConv2d, attend, ceil_div, drop_path_rates, freeze, resize
from densevit.registry import BACKBONES

STRIDES = (4, 8, 16, 32)
STEM_CHANNELS = 16
PATCH = 2  # cells of a patch per axis
# What timm calls the parts, and the official names; those of the norm after the transformer depend on its depth.
TIMM = (
    (r"^stem\.", "conv_1.block."),
    (r"^final_conv\.", "conv_1x1_exp.block."),
    (r"^stages\.(\d)\.", lambda match: f"layer_{int(match[1]) + 1}."),
    (r"\.conv1_1x1\.", ".block.exp_1x1.block."),
    (r"\.conv2_kxk\.", ".block.conv_3x3.block."),
    (r"\.conv3_1x1\.", ".block.red_1x1.block."),
    (r"\.conv_kxk\.", ".local_rep.conv_3x3.block."),
    (r"\.conv_1x1\.", ".local_rep.conv_1x1.block.conv."),
    (r"\.conv_proj\.", ".conv_proj.block."),
    (r"\.conv_fusion\.", ".fusion.block."),
    (r"\.transformer\.", ".global_rep."),
    (r"\.norm1\.", ".pre_norm_mha.0."),
    (r"\.attn\.(qkv|proj)\.", lambda match: f".pre_norm_mha.1.{'qkv' if match[1] == 'qkv' else 'out'}_proj."),
    (r"\.norm2\.", ".pre_norm_ffn.0."),
    (r"\.mlp\.fc(\d)\.", lambda match: f".pre_norm_ffn.{3 * int(match[1]) - 2}."),
    (r"\.bn\.", ".norm."),
)


def _named(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


def _conv(
    channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """Convolution, batch norm and, unless told otherwise, SiLU."""
    if kernel_size == 1:
        conv: nn.Module = PointwiseConv2d(channels, out_channels, bias=False)
    else:
        conv = nn.Conv2d(channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
    layers = {"conv": conv, "norm": nn.BatchNorm2d(out_channels), **({"act": nn.SiLU()} if act else {})}
    return _named(block=_named(**layers))


class InvertedResidual(nn.Module):
    """Widen, convolve each channel, narrow (MobileNetV2, https://arxiv.org/abs/1801.04381)."""

    def __init__(self, channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.residual = stride == 1 and channels == out_channels
        self.block = _named(
            exp_1x1=_conv(channels, hidden),
            conv_3x3=_conv(hidden, hidden, 3, stride, groups=hidden),
            red_1x1=_conv(hidden, out_channels, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.residual else self.block(x)


class PatchAttention(nn.Module):
    """Attention among the cells at the same place of their patches: tokens ``(N, places, patches, C)``."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv_proj = nn.Linear(dim, 3 * dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv_proj(x).flatten(0, 1).chunk(3, dim=-1)
        return self.out_proj(attend(q, k, v, self.num_heads)).unflatten(0, x.shape[:2])


class TransformerLayer(nn.Module):
    """Attention and feed-forward layer, each after a norm and with a shortcut."""

    def __init__(self, dim: int, num_heads: int, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.pre_norm_mha = nn.Sequential(nn.LayerNorm(dim), PatchAttention(dim, num_heads), nn.Dropout(dropout))
        self.pre_norm_ffn = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, 2 * dim),
            nn.SiLU(),
            nn.Identity(),  # officially a dropout of rate 0, which has a number
            nn.Linear(2 * dim, dim),
            nn.Dropout(dropout),
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.pre_norm_mha(x))
        return x + self.drop_path(self.pre_norm_ffn(x))


class MobileViTBlock(nn.Module):
    """Convolutions, a transformer among the patches, and the fusion of what it finds with the input.

    A map whose sides the patch does not divide is interpolated to the next larger one, and back.
    """

    def __init__(self, channels: int, dim: int, num_heads: int, dropout: float, drop_path: Sequence[float]) -> None:
        super().__init__()
        project = _named(block=_named(conv=PointwiseConv2d(channels, dim, bias=False)))
        self.local_rep = _named(conv_3x3=_conv(channels, channels, 3), conv_1x1=project)
        layers = [TransformerLayer(dim, num_heads, dropout, rate) for rate in drop_path]
        self.global_rep = nn.Sequential(*layers, nn.LayerNorm(dim))
        self.conv_proj = _conv(dim, channels)
        self.fusion = _conv(2 * channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        grid = x.shape[2:]
        patches = [ceil_div(n, PATCH) for n in grid]
        y = resize(self.local_rep(x), [PATCH * n for n in patches])
        y = resize(_fold(self.global_rep(_unfold(y)), patches), grid)
        return self.fusion(torch.cat([x, self.conv_proj(y)], dim=1))


def _unfold(x: Tensor) -> Tensor:
    """Map ``(N, C, H, W)`` to contiguous tokens ``(N, places, patches, C)``."""
    cells = x.movedim(1, -1).unflatten(2, (-1, PATCH)).unflatten(1, (-1, PATCH))
    return cells.permute(0, 2, 4, 1, 3, 5).flatten(3, 4).flatten(1, 2)


def _fold(x: Tensor, patches: Sequence[int]) -> Tensor:
    """Undo `_unfold`; the map is channels-last."""
    cells = x.unflatten(2, tuple(patches)).unflatten(1, (PATCH, PATCH)).permute(0, 3, 1, 4, 2, 5)
    return cells.flatten(3, 4).flatten(1, 2).movedim(-1, 1)


@BACKBONES.register_module()
class MobileViT(Backbone):
    """Four maps: inverted residuals at stride 4, then each with a transformer at 8, 16 and 32. Defaults: MobileViT-S.

    Parameters are named as in the official release. Its weights want pixels of 0..1, blue first, and no other
    normalisation, in a config::

        model = dict(data_preprocessor=dict(mean=(0, 0, 0), std=(255, 255, 255), bgr=True))

    It was trained on images of several sizes (`densevit.data.sampler.MultiScaleBatchSampler`). Weights begin as with
    today's official code; that of the paper asked for normal convolutions and truncated normal linear layers.

    Args:
        in_channels: Channels of the images.
        channels: Channels of the five layers after the stem; the first has no map.
        dims: Width of the three transformers.
        depths: Layers of the three transformers.
        num_heads: Attention heads.
        expansion: Width of the inverted residuals over that of their input.
        dropout: Rate of dropout after attention and feed-forward layers.
        drop_path: Rate of stochastic depth at the last transformer layer; officially there is none.
        out_indices: Maps to return, of strides 4, 8, 16, 32; layers after the last of them are not built. By default
            all, none with ``token``.
        token: Return the projected and averaged last map, on which the official model classifies.
        frozen_stages: Number of first maps whose layers are not trained; all before stride 4 belongs to the first.

    Raises:
        ConfigError: Settings that contradict each other.
    """

    divisor = (PATCH * STRIDES[-1], PATCH * STRIDES[-1])
    img_size = 256
    weights_licence = "Apple Sample Code License"

    def __init__(
        self,
        in_channels: int = 3,
        channels: Sequence[int] = (32, 64, 96, 128, 160),
        dims: Sequence[int] = (144, 192, 240),
        depths: Sequence[int] = (2, 4, 3),
        num_heads: int = 4,
        expansion: int = 4,
        dropout: float = 0.1,
        drop_path: float = 0.0,
        out_indices: Sequence[int] | None = None,
        token: bool = False,
        frozen_stages: int = 0,
    ) -> None:
        super().__init__()
        if (len(channels), len(dims), len(depths)) != (5, 3, 3):
            raise ConfigError(
                "MobileViT has five layers, three of them with a transformer: give 5 channels, 3 dims and 3 depths"
            )
        check_heads("MobileViT", dims, [num_heads] * len(dims))
        self.in_channels = in_channels
        self.out_indices = select_maps(len(STRIDES), out_indices, token)
        check_maps("MobileViT", len(STRIDES), self.out_indices, token)
        self.num_stages = len(STRIDES) if token else max(self.out_indices) + 1
        check_frozen("MobileViT", self.num_stages, frozen_stages)
        self.specs = tuple(FeatureSpec(channels[i + 1], (STRIDES[i], STRIDES[i])) for i in self.out_indices)

        def shrink(i: int) -> InvertedResidual:
            return InvertedResidual(channels[i - 1], channels[i], 2, expansion)

        self.conv_1 = _conv(in_channels, STEM_CHANNELS, 3, 2)
        self.layer_1 = nn.Sequential(InvertedResidual(STEM_CHANNELS, channels[0], 1, expansion))
        same = (InvertedResidual(channels[1], channels[1], 1, expansion) for _ in range(2))
        self.layer_2 = nn.Sequential(shrink(1), *same)
        rates = drop_path_rates(drop_path, depths)
        for i in range(2, self.num_stages + 1):
            block = MobileViTBlock(channels[i], dims[i - 2], num_heads, dropout, rates[i - 2])
            self.add_module(f"layer_{i + 1}", nn.Sequential(shrink(i), block))
        if token:
            self.token_channels = 4 * channels[-1]
            self.conv_1x1_exp = _conv(channels[-1], self.token_channels)
        self.apply(_init_weights)
        if frozen_stages:
            for part in (self.conv_1, *(self._layer(i) for i in range(1, frozen_stages + 2))):
                freeze(part)

    def forward(self, x: Tensor) -> Features:
        check_images(x, self.in_channels)
        x = self.conv_1(x.contiguous(memory_format=torch.channels_last))
        maps = []
        for i in range(1, self.num_stages + 2):
            for block in self._layer(i):
                x = self.run(block, x)
            if i - 2 in self.out_indices:
                maps.append(x)
        return Features(tuple(maps), self.conv_1x1_exp(x).mean(dim=(2, 3)) if self.token_channels else None)

    def layer_groups(self) -> list[tuple[str, ...]]:
        groups: list[tuple[str, ...]] = [("conv_1.",)]
        for i in range(1, self.num_stages + 2):
            groups += [(f"layer_{i}.{j}.",) for j in range(len(self._layer(i)))]
        return [*groups, ("conv_1x1_exp.",)] if self.token_channels else groups

    def _layer(self, i: int) -> nn.Sequential:
        layer: nn.Sequential = getattr(self, f"layer_{i}")
        return layer

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the layout of timm."""
        return {
            _translate(key, state) if re.match(r"(stem|stages|final_conv)\.", key) else key: value
            for key, value in state.items()
        }


def _translate(key: str, state: dict[str, Tensor]) -> str:
    if match := re.match(r"(stages\.\d\.1\.)norm\.", key):
        depth = sum(other.startswith(f"{match[1]}transformer.") and other.endswith("norm1.weight") for other in state)
        key = key.replace(".norm.", f".global_rep.{depth}.")
    return rename(key, TIMM)


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


@BACKBONES.register_module()
def mobilevit_xxs(**options: Any) -> MobileViT:
    """0.9M parameters, 1.3M with the token and the classifier of ImageNet."""
    sizes = {"channels": (16, 24, 48, 64, 80), "dims": (64, 80, 96), "expansion": 2}
    return MobileViT(**{**sizes, **options})


@BACKBONES.register_module()
def mobilevit_xs(**options: Any) -> MobileViT:
    """1.9M parameters, 2.3M with the token and the classifier of ImageNet."""
    return MobileViT(**{"channels": (32, 48, 64, 80, 96), "dims": (96, 120, 144), **options})


@BACKBONES.register_module()
def mobilevit_s(**options: Any) -> MobileViT:
    """4.8M parameters, 5.6M with the token and the classifier of ImageNet."""
    return MobileViT(**options)
