"""DeepViT, a deep vision transformer whose heads of attention are mixed.

Paper: https://arxiv.org/abs/2103.11886
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densevit.backbones.plain import PlainBackbone, position_table
from densevit.errors import ConfigError
from densevit.features import check_heads
from densevit.layers import (
    MLP,
    AttentionTap,
    DropPath,
    PatchEmbed,
    SelfAttention,
    drop_path_rates,
    init_linear,
    pad_to_multiple,
    resize_positions,
    to_tokens,
)
from densevit.registry import BACKBONES

PATCH_SIZE = 16
STEM_CHANNELS = 64


class ConvPatchEmbed(nn.Module):
    """Two convolutions at half the resolution, then patches of their map: ``(N, C, H, W)`` to tokens and their grid."""

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, STEM_CHANNELS, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.conv2 = nn.Conv2d(STEM_CHANNELS, STEM_CHANNELS, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(STEM_CHANNELS)
        self.proj = nn.Conv2d(STEM_CHANNELS, dim, PATCH_SIZE // 2, PATCH_SIZE // 2)

    def forward(self, x: Tensor) -> tuple[Tensor, torch.Size]:
        x = pad_to_multiple(x, PATCH_SIZE)
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.proj(F.relu(self.bn2(self.conv2(x))))
        return to_tokens(x), x.shape[2:]


class ReAttention(SelfAttention):
    """Self-attention whose maps are mixed by a learnt matrix over the heads, then normed per head.

    After that, weights are neither positive nor do they sum to one. What they gather is multiplied by ``scale``.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0, scale: float = 1.0) -> None:
        super().__init__(dim, num_heads, dropout=dropout)
        self.scale = scale
        self.reatten_matrix = nn.Conv2d(num_heads, num_heads, 1)
        self.var_norm = nn.BatchNorm2d(num_heads)
        self.tap = AttentionTap()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # each (N, heads, L, dim)
        weights = ((q * q.shape[-1] ** -0.5) @ k.mT).softmax(dim=-1)
        weights = self.mix(F.dropout(weights, self.dropout, self.training))
        x = self.tap(weights) @ v * self.scale
        return self.proj(x.transpose(1, 2).flatten(2))

    def mix(self, weights: Tensor) -> Tensor:
        """Mix the heads of maps ``(N, heads, L, L)``, and norm each."""
        conv, norm = self.reatten_matrix, self.var_norm
        if norm.training:
            return norm(conv(weights))
        # The maps are large: with the norm in the matrix they are passed through once.
        assert conv.bias is not None
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
        bias = (conv.bias - norm.running_mean) * factor + norm.bias
        return F.conv2d(weights, conv.weight * factor.view(-1, 1, 1, 1), bias)


class DeepViTBlock(nn.Module):
    """Attention and feed-forward layer; both read their input times ``adjustment``, and are divided by it."""

    def __init__(self, attn: nn.Module, dim: int, mlp_ratio: float, adjustment: float, drop_path: float) -> None:
        super().__init__()
        eps = 1e-6 / adjustment**2  # norms of the adjusted input with 1e-6 are norms of the input with this
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)
        self.gain = 1 / adjustment

    def forward(self, x: Tensor) -> Tensor:
        x = torch.add(x, self.drop_path(self.attn(self.norm1(x))), alpha=self.gain)
        return torch.add(x, self.drop_path(self.mlp(self.norm2(x))), alpha=self.gain)


@BACKBONES.register_module()
class DeepViT(PlainBackbone):
    """A vision transformer with re-attention in all blocks, or in the last. Parameters have their official names.

    The defaults are DeepViT-16B.

    Args:
        in_channels: Channels of the images.
        img_size: Side, or height and width, of the images that the positions are for; for others they are resized.
        dim: Channels of the tokens.
        depth: Number of blocks.
        num_heads: Attention heads.
        mlp_ratio: Width of the feed-forward layers over that of the tokens.
        patch_embed: "linear", or "conv": convolutions before the patches are cut.
        reattention_blocks: Number of last blocks with re-attention, by default all; 0 makes a plain transformer.
        reattention_scale: Multiply re-attention by the root of one over the channels of a head.
        scale_adjustment: Factor on the input of the branches of each block, by which their output is divided.
        attn_dropout: Rate at which weights of the attention are dropped.
        drop_path: Rate of stochastic depth at the last block.
        out_indices: Quarters of the blocks after which to return a map. By default the last, none with ``token``.
        token: Return the class token.
        frozen_stages: Number of first blocks that are not trained, and the stem with them.

    Raises:
        ConfigError: Settings that contradict each other.
    """

    stem = ("cls_token", "pos_embed", "patch_embed.")
    tail = ("norm.",)
    positions = "pos_embed"
    prefix = 1
    no_weight_decay = ("pos_embed", "cls_token")
    weights_licence = "MIT"

    def __init__(
        self,
        in_channels: int = 3,
        img_size: int | Sequence[int] = 224,
        dim: int = 384,
        depth: int = 16,
        num_heads: int = 12,
        mlp_ratio: float = 3.0,
        patch_embed: str = "linear",
        reattention_blocks: int | None = None,
        reattention_scale: bool = False,
        scale_adjustment: float = 1.0,
        attn_dropout: float = 0.0,
        drop_path: float = 0.2,
        out_indices: Sequence[int] | None = None,
        token: bool = False,
        frozen_stages: int = 0,
    ) -> None:
        super().__init__(in_channels, dim, depth, PATCH_SIZE, out_indices, token)
        check_heads("DeepViT", [dim], [num_heads])
        plain_blocks = 0 if reattention_blocks is None else depth - reattention_blocks
        if plain_blocks > depth:
            raise ConfigError(f"reattention_blocks of DeepViT is a number of blocks, not {reattention_blocks}")
        if patch_embed not in ("linear", "conv"):
            raise ConfigError(f'patch_embed of DeepViT is "linear" or "conv", not {patch_embed!r}')
        if scale_adjustment <= 0:
            raise ConfigError(f"scale_adjustment of DeepViT must be positive, not {scale_adjustment}")
        self.set_grid(img_size)
        linear = patch_embed == "linear"
        self.patch_embed = PatchEmbed(in_channels, dim, PATCH_SIZE) if linear else ConvPatchEmbed(in_channels, dim)
        self.cls_token = position_table(1, dim)
        self.pos_embed = position_table(1 + self.grid[0] * self.grid[1], dim)
        scale = (dim // num_heads) ** -0.5 if reattention_scale else 1.0
        self.blocks = nn.ModuleList()
        for i, rate in enumerate(drop_path_rates(drop_path, [depth])[0][: self.depth]):
            if i < plain_blocks:
                attn = SelfAttention(dim, num_heads, dropout=attn_dropout)
            else:
                attn = ReAttention(dim, num_heads, attn_dropout, scale)
            self.blocks.append(DeepViTBlock(attn, dim, mlp_ratio, scale_adjustment, rate))
        if token:
            self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.apply(init_linear)
        self.freeze_first(frozen_stages)

    def embed(self, x: Tensor) -> tuple[Tensor, Sequence[int]]:
        x, grid = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        return x + resize_positions(self.pos_embed, self.grid, grid, self.prefix), grid

    def pool(self, x: Tensor) -> Tensor:
        return self.norm(x[:, 0])


def _deepvit(options: dict[str, Any], **settings: Any) -> DeepViT:
    return DeepViT(**{**settings, **options})


@BACKBONES.register_module()
def deepvit_16b(**options: Any) -> DeepViT:
    """24.4M parameters with the classifier of ImageNet."""
    return DeepViT(**options)


@BACKBONES.register_module()
def deepvit_24b(**options: Any) -> DeepViT:
    """36.3M parameters with the classifier of ImageNet."""
    return _deepvit(options, depth=24)


@BACKBONES.register_module()
def deepvit_32b(**options: Any) -> DeepViT:
    """48.1M parameters with the classifier of ImageNet."""
    return _deepvit(options, depth=32)


@BACKBONES.register_module()
def deepvit_s(**options: Any) -> DeepViT:
    """27.3M parameters with the classifier of ImageNet."""
    settings = {"dim": 396, "reattention_blocks": 5, "reattention_scale": True}
    return _deepvit(options, patch_embed="conv", scale_adjustment=0.5, **settings)


@BACKBONES.register_module()
def deepvit_l(**options: Any) -> DeepViT:
    """58.9M parameters with the classifier of ImageNet; the paper also has it for images of 384 x 384."""
    settings = {"dim": 420, "depth": 32, "reattention_blocks": 12}
    return _deepvit(options, patch_embed="conv", scale_adjustment=0.5, **settings)
