"""Cross-Covariance Image Transformer (XCiT).

Paper: https://arxiv.org/abs/2106.09681
"""

import re
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
    check_frozen,
    check_heads,
    check_images,
    check_maps,
    select_maps,
)
from densevit.layers import (
    MLP,
    ClassAttentionBlock,
    CrossCovarianceAttention,
    DropPath,
    FourierPosition,
    ceil_div,
    crop,
    freeze,
    halving_convs,
    init_linear,
    to_map,
    to_tokens,
)
from densevit.registry import BACKBONES

STRIDES = (4, 8, 16, 32)
# After how many sixths of the blocks each level is taken.
TAKEN_AFTER = (2, 3, 4, 6)


class ConvPatchEmbed(nn.Module):
    """Halve the image by convolutions, while channels double up to ``dim``, until a cell stands for a patch."""

    def __init__(self, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(*halving_convs(in_channels, dim, patch_size)[:-1])

    def forward(self, x: Tensor) -> Tensor:
        # Faster than from contiguous images, and the tokens of the result need no copy.
        return self.proj(x.contiguous(memory_format=torch.channels_last))


class LocalPatchInteraction(nn.Module):
    """Two depthwise convolutions of tokens on their grid: attention between channels mixes no neighbours."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.bn = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        return to_tokens(self.conv2(self.bn(F.gelu(self.conv1(to_map(x, grid))))))


class XCiTBlock(nn.Module):
    """Attention between channels, interaction of neighbours, feed-forward layer; each scaled per channel."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, layer_scale: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = CrossCovarianceAttention(dim, num_heads)
        self.norm3 = nn.LayerNorm(dim, eps=1e-6)  # officially numbered so, and second all the same
        self.local_mp = LocalPatchInteraction(dim)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)
        self.gamma1 = nn.Parameter(torch.full((dim,), layer_scale))
        self.gamma2 = nn.Parameter(torch.full((dim,), layer_scale))
        self.gamma3 = nn.Parameter(torch.full((dim,), layer_scale))

    def forward(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        x = torch.addcmul(x, self.gamma1, self.drop_path(self.attn(self.norm1(x))))
        x = torch.addcmul(x, self.gamma3, self.drop_path(self.local_mp(self.norm3(x), grid)))
        return torch.addcmul(x, self.gamma2, self.drop_path(self.mlp(self.norm2(x))))


@BACKBONES.register_module()
class XCiT(Backbone):
    """Blocks at one stride; four maps, or the class token, are made from them. Parameters have their official names.

    Args:
        in_channels: Channels of the images.
        patch_size: Stride of the blocks, 8 or 16.
        dim: Channels of the tokens and of every map.
        depth: Number of blocks.
        num_heads: Attention heads.
        mlp_ratio: Width of the feed-forward layers over that of the tokens.
        layer_scale: Initial scale of each branch; the paper has 1 for 12 blocks and 1e-5 for 24.
        tokens_norm: Norm all tokens in the class attention blocks, not just the class token.
        class_attention_depth: Number of class attention blocks, built for the token only.
        drop_path: Rate of stochastic depth, the same at all blocks.
        out_indices: Maps to return, of strides 4, 8, 16, 32; blocks that none needs are not built. By default all,
            none with ``token``.
        token: Return the class token.
        frozen_stages: Number of first blocks that are not trained, and the stem with them.

    Raises:
        ConfigError: Settings that contradict each other.
    """

    divisor = (32, 32)
    no_weight_decay = ("temperature", "cls_token")
    dense_only = ("fpn",)
    weights_licence = "Apache-2.0"

    def __init__(
        self,
        in_channels: int = 3,
        patch_size: int = 16,
        dim: int = 384,
        depth: int = 12,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        layer_scale: float = 1.0,
        tokens_norm: bool = True,
        class_attention_depth: int = 2,
        drop_path: float = 0.0,
        out_indices: Sequence[int] | None = None,
        token: bool = False,
        frozen_stages: int = 0,
    ) -> None:
        super().__init__()
        if patch_size not in (8, 16):
            raise ConfigError(f"patch_size of XCiT is 8 or 16, not {patch_size}")
        check_heads("XCiT", [dim], [num_heads])
        self.in_channels = in_channels
        self.patch_size = patch_size
        self.out_indices = select_maps(len(STRIDES), out_indices, token)
        check_maps("XCiT", len(STRIDES), self.out_indices, token)
        ends = [max(depth * TAKEN_AFTER[i] // 6, 1) for i in self.out_indices]
        built = depth if token else ends[-1]
        check_frozen("XCiT", built, frozen_stages)
        self.levels = [[i for i, end in zip(self.out_indices, ends, strict=True) if end == n + 1] for n in range(built)]
        self.specs = tuple(FeatureSpec(dim, (STRIDES[i], STRIDES[i])) for i in self.out_indices)
        self.token_channels = dim if token else 0

        self.patch_embed = ConvPatchEmbed(in_channels, dim, patch_size)
        self.pos_embeder = FourierPosition(dim)
        self.blocks = nn.ModuleList(XCiTBlock(dim, num_heads, mlp_ratio, layer_scale, drop_path) for _ in range(built))
        if token:
            self.cls_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, dim), std=0.02))
            self.cls_attn_blocks = nn.ModuleList(
                ClassAttentionBlock(dim, num_heads, mlp_ratio, layer_scale, tokens_norm)
                for _ in range(class_attention_depth)
            )
            self.norm = nn.LayerNorm(dim, eps=1e-6)
        for i in self.out_indices:
            self.add_module(f"fpn{i + 1}", _rescale(dim, patch_size, STRIDES[i]))
        self.apply(init_linear)
        if frozen_stages:
            for part in (self.patch_embed, self.pos_embeder, *self.blocks[:frozen_stages]):
                freeze(part)

    def forward(self, x: Tensor) -> Features:
        check_images(x, self.in_channels, self.patch_size)
        space, maps = x.shape[2:], []
        x = self.patch_embed(x)
        grid = x.shape[2:]
        tokens = to_tokens(x) + self.pos_embeder(grid)
        for block, levels in zip(self.blocks, self.levels, strict=True):
            tokens = self.run(block, tokens, grid)
            for i in levels:
                level = getattr(self, f"fpn{i + 1}")(to_map(tokens, grid))
                maps.append(crop(level, [ceil_div(n, STRIDES[i]) for n in space]))
        return Features(tuple(maps), self._classify(tokens) if self.token_channels else None)

    def _classify(self, tokens: Tensor) -> Tensor:
        token = self.cls_token.expand(tokens.shape[0], -1, -1)
        for block in self.cls_attn_blocks:
            token, tokens = self.run(block, token, tokens)
        return self.norm(token.squeeze(1))

    def layer_groups(self) -> list[tuple[str, ...]]:
        groups = [("patch_embed.", "pos_embeder.", "cls_token"), *((f"blocks.{i}.",) for i in range(len(self.blocks)))]
        if self.token_channels:
            groups += [(f"cls_attn_blocks.{i}.",) for i in range(len(self.cls_attn_blocks))]
        return [*groups, ("norm.", "fpn")]

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the layout of timm, which splits the projections of class attention."""
        translated = {}
        for key, value in state.items():
            key = re.sub(r"^pos_embed\.", "pos_embeder.", key)
            if match := re.fullmatch(r"(cls_attn_blocks\.\d+\.attn\.)[qkv](\.\w+)", key):
                start, end = match.groups()
                key, value = f"{start}qkv{end}", torch.cat([state[f"{start}{part}{end}"] for part in "qkv"])
            translated[key] = value
        return translated


def _rescale(dim: int, old: int, new: int) -> nn.Module:
    """Bring a map from stride ``old`` to stride ``new``."""
    if new == old // 4:
        first, second = (nn.ConvTranspose2d(dim, dim, 2, 2) for _ in range(2))
        return nn.Sequential(first, nn.BatchNorm2d(dim), nn.GELU(), second)
    if new == old // 2:
        return nn.Sequential(nn.ConvTranspose2d(dim, dim, 2, 2))
    return nn.Identity() if new == old else nn.MaxPool2d(new // old, ceil_mode=True)


def _xcit(options: dict[str, Any], **settings: Any) -> XCiT:
    return XCiT(**{**settings, **options})


@BACKBONES.register_module()
def xcit_nano_12_p16(**options: Any) -> XCiT:
    """3.1M parameters with the classifier of ImageNet."""
    return _xcit(options, dim=128, num_heads=4, tokens_norm=False)


@BACKBONES.register_module()
def xcit_tiny_12_p16(**options: Any) -> XCiT:
    """6.7M parameters with the classifier of ImageNet."""
    return _xcit(options, dim=192, num_heads=4)


@BACKBONES.register_module()
def xcit_tiny_24_p16(**options: Any) -> XCiT:
    """12.1M parameters with the classifier of ImageNet."""
    return _xcit(options, dim=192, num_heads=4, depth=24, layer_scale=1e-5, drop_path=0.05)


@BACKBONES.register_module()
def xcit_small_12_p16(**options: Any) -> XCiT:
    """26.3M parameters with the classifier of ImageNet."""
    return _xcit(options, dim=384, num_heads=8, drop_path=0.05)


@BACKBONES.register_module()
def xcit_small_24_p16(**options: Any) -> XCiT:
    """47.7M parameters with the classifier of ImageNet."""
    return _xcit(options, dim=384, num_heads=8, depth=24, layer_scale=1e-5, drop_path=0.1)


@BACKBONES.register_module()
def xcit_medium_24_p16(**options: Any) -> XCiT:
    """84.4M parameters with the classifier of ImageNet."""
    return _xcit(options, dim=512, num_heads=8, depth=24, layer_scale=1e-5, drop_path=0.15)


@BACKBONES.register_module()
def xcit_large_24_p16(**options: Any) -> XCiT:
    """189.1M parameters with the classifier of ImageNet."""
    return _xcit(options, dim=768, num_heads=16, depth=24, layer_scale=1e-5, drop_path=0.25)


@BACKBONES.register_module()
def xcit_nano_12_p8(**options: Any) -> XCiT:
    """3.0M parameters with the classifier of ImageNet."""
    return _xcit(options, patch_size=8, dim=128, num_heads=4, tokens_norm=False)


@BACKBONES.register_module()
def xcit_tiny_12_p8(**options: Any) -> XCiT:
    """6.7M parameters with the classifier of ImageNet."""
    return _xcit(options, patch_size=8, dim=192, num_heads=4)


@BACKBONES.register_module()
def xcit_tiny_24_p8(**options: Any) -> XCiT:
    """12.1M parameters with the classifier of ImageNet."""
    return _xcit(options, patch_size=8, dim=192, num_heads=4, depth=24, layer_scale=1e-5, drop_path=0.05)


@BACKBONES.register_module()
def xcit_small_12_p8(**options: Any) -> XCiT:
    """26.2M parameters with the classifier of ImageNet."""
    return _xcit(options, patch_size=8, dim=384, num_heads=8, drop_path=0.05)


@BACKBONES.register_module()
def xcit_small_24_p8(**options: Any) -> XCiT:
    """47.6M parameters with the classifier of ImageNet."""
    return _xcit(options, patch_size=8, dim=384, num_heads=8, depth=24, layer_scale=1e-5, drop_path=0.1)


@BACKBONES.register_module()
def xcit_medium_24_p8(**options: Any) -> XCiT:
    """84.3M parameters with the classifier of ImageNet."""
    return _xcit(options, patch_size=8, dim=512, num_heads=8, depth=24, layer_scale=1e-5, drop_path=0.15)


@BACKBONES.register_module()
def xcit_large_24_p8(**options: Any) -> XCiT:
    """188.9M parameters with the classifier of ImageNet."""
    return _xcit(options, patch_size=8, dim=768, num_heads=16, depth=24, layer_scale=1e-5, drop_path=0.25)
