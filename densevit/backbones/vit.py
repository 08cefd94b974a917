"""The plain Vision Transformer as its authors scale it.

Papers: https://arxiv.org/abs/2010.11929, https://arxiv.org/abs/2106.04560, https://arxiv.org/abs/2205.01580
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densevit.backbones.plain import PlainBackbone, position_table
from densevit.backbones.vit_keys import from_jax, from_libraries, join_class_position
from densevit.errors import ConfigError
from densevit.features import check_heads
from densevit.layers import (
    GELUS,
    MLP,
    PatchEmbed,
    SelfAttention,
    TransformerBlock,
    attend,
    drop_path_rates,
    fit_positions,
    init_lecun,
    init_xavier,
    resize_positions,
)
from densevit.registry import BACKBONES

POOLS = ("gap", "map", "tok")
POSITIONS = ("learnt", "sincos2d")


class AttentionPool(nn.Module):
    """Tokens ``(N, L, C)`` to one vector ``(N, C)``: a learnt query attends to them, a feed-forward layer follows.

    Other than in a block, the query is not added to what the attention gives.
    """

    def __init__(self, dim: int, num_heads: int, hidden: int, approximate: str) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.latent = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, dim))[None])
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim, hidden, approximate)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(self.latent).expand(x.shape[0], -1, -1)
        k, v = self.kv(x).chunk(2, dim=-1)
        x = self.proj(attend(q, k, v, self.num_heads)).squeeze(1)
        return x + self.mlp(self.norm(x))


@BACKBONES.register_module()
class ViT(PlainBackbone):
    """Blocks of attention over patches. Defaults are S/16 of big_vision, the official code. timm's files can be loaded.

    Parameters are named as in timm; `densevit.backbones.vit_keys` maps the official names to them. timm's models need
    ``gelu="exact"``. Their class token has a position, which loading adds to the token: the sum is all that is used.

    Args:
        in_channels: Channels of the images.
        img_size: Side, or height and width, of the images that learnt positions are for. For others these are resized
            bicubically.
        patch_size: Side of a patch.
        dim: Channels of the tokens.
        depth: Number of blocks.
        num_heads: Attention heads.
        hidden: Width of the feed-forward layers.
        pool: What to classify on: "gap", the mean of the tokens; "map", attention pooling; "tok", a class token.
        representation: Whether a linear layer and tanh follow the pooling (``rep_size=True`` officially).
        positions: "learnt", or "sincos2d": sines and cosines of row and column, which do not learn.
        gelu: "tanh", the approximation that is JAX's default, or "exact".
        drop_path: Rate of stochastic depth at the last block.
        out_indices: Quarters of the blocks after which to return a map. By default the last, none with ``token``.
        token: Return the vector to classify on.
        frozen_stages: Number of first blocks that are not trained, and the embedding of the patches with them.

    Raises:
        ConfigError: Settings that contradict each other.
    """

    stem = ("patch_embed.", "pos_embed", "cls_token")
    tail = ("norm.", "attn_pool.", "pre_logits.")
    no_weight_decay = ("pos_embed", "cls_token", "latent")
    weights_licence = "Apache-2.0"

    def __init__(
        self,
        in_channels: int = 3,
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        hidden: int = 1536,
        pool: str = "gap",
        representation: bool = False,
        positions: str = "learnt",
        gelu: str = "tanh",
        drop_path: float = 0.0,
        out_indices: Sequence[int] | None = None,
        token: bool = False,
        frozen_stages: int = 0,
    ) -> None:
        super().__init__(in_channels, dim, depth, patch_size, out_indices, token)
        check_heads("ViT", [dim], [num_heads])
        _check_choices(pool=(pool, POOLS), positions=(positions, POSITIONS), gelu=(gelu, tuple(GELUS)))
        if positions == "sincos2d" and dim % 4:
            raise ConfigError(f'positions="sincos2d" of ViT needs a dim that 4 divides, not {dim}')
        self.set_grid(img_size)
        self.pooling = pool
        self.prefix = int(pool == "tok")
        self.patch_embed = PatchEmbed(in_channels, dim, patch_size)
        self.pos_embed = position_table(math.prod(self.grid), dim, dim**-0.5) if positions == "learnt" else None
        if pool == "tok":
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        rates = drop_path_rates(drop_path, [depth])[0][: self.depth]
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, num_heads, hidden, rate, approximate=GELUS[gelu]) for rate in rates
        )
        if token:
            self.norm = nn.LayerNorm(dim, eps=1e-6)
            if pool == "map":
                self.attn_pool = AttentionPool(dim, num_heads, hidden, GELUS[gelu])
            self.pre_logits = nn.Linear(dim, dim) if representation else None
            if self.pre_logits is not None:
                init_lecun(self.pre_logits)
        self.apply(_init_weights)
        init_lecun(self.patch_embed.proj)
        self.freeze_first(frozen_stages)

    def embed(self, x: Tensor) -> tuple[Tensor, Sequence[int]]:
        # The tokens of a map in this layout need no copy.
        x, grid = self.patch_embed(x.contiguous(memory_format=torch.channels_last))
        if self.pos_embed is None:
            weight = self.patch_embed.proj.weight
            x = x + sincos2d(grid, x.shape[-1], weight.device).to(weight.dtype)
        else:
            x = x + resize_positions(self.pos_embed, self.grid, grid)
        if self.prefix:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        return x, grid

    def pool(self, x: Tensor) -> Tensor:
        x = self.norm(x[:, 0] if self.pooling == "tok" else x)
        if self.pooling == "map":
            x = self.attn_pool(x)
        elif self.pooling == "gap":
            x = x.mean(dim=1)
        return x if self.pre_logits is None else self.pre_logits(x).tanh()

    def adapt(self, key: str, value: Tensor) -> Tensor:
        return fit_positions(value, self.grid) if key == "pos_embed" else value  # a class token has none

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename and transpose official tensors, rename those of transformers and torchvision.

        Add a class token's position, as in their files and timm's, to the token.
        """
        return join_class_position(from_libraries(from_jax(state)))


def sincos2d(grid: Sequence[int], dim: int, device: torch.device | None = None) -> Tensor:
    """Return positions ``(1, L, dim)``: sines and cosines of the column, then of the row.

    They turn at dim / 4 frequencies, from 1 down to 1e-4 radian per cell (https://arxiv.org/abs/2104.02057).
    """
    frequencies = 10000.0 ** -torch.linspace(0, 1, dim // 4, device=device)
    y, x = (torch.outer(torch.arange(n, device=device).float(), frequencies) for n in grid)
    x = torch.cat([x.sin(), x.cos()], dim=1).expand(y.shape[0], -1, -1)
    y = torch.cat([y.sin(), y.cos()], dim=1)[:, None].expand(-1, x.shape[1], -1)
    return torch.cat([x, y], dim=2).flatten(0, 1)[None]


def _check_choices(**choices: tuple[str, tuple[str, ...]]) -> None:
    for name, (value, known) in choices.items():
        if value not in known:
            raise ConfigError(f"{name} of ViT is one of {', '.join(map(repr, known))}, not {value!r}")


def _init_weights(module: nn.Module) -> None:
    """Fill as the official code does, where queries, keys and values are projected by layers of their own."""
    if isinstance(module, MLP):
        for layer in (module.fc1, module.fc2):
            init_xavier(layer)
    elif isinstance(module, SelfAttention):
        _init_attention(module.qkv, module.proj)
    elif isinstance(module, AttentionPool):
        _init_attention(module.q, module.kv, module.proj)


def _init_attention(*layers: nn.Linear) -> None:
    for layer in layers:
        for square in layer.weight.detach().split(layer.in_features):
            nn.init.xavier_uniform_(square)
        nn.init.zeros_(layer.bias)


def _vit(options: dict[str, Any], **settings: Any) -> ViT:
    return ViT(**{**settings, **options})


@BACKBONES.register_module()
def vit_ti16(**options: Any) -> ViT:
    """5.7M parameters with the classifier of ImageNet."""
    return _vit(options, dim=192, num_heads=3, hidden=768)


@BACKBONES.register_module()
def vit_s16(**options: Any) -> ViT:
    """22.0M parameters with the classifier of ImageNet."""
    return _vit(options, dim=384, num_heads=6, hidden=1536)


@BACKBONES.register_module()
def vit_s32(**options: Any) -> ViT:
    """22.9M parameters with the classifier of ImageNet."""
    return _vit(options, dim=384, num_heads=6, hidden=1536, patch_size=32)


@BACKBONES.register_module()
def vit_b16(**options: Any) -> ViT:
    """86.6M parameters with the classifier of ImageNet."""
    return _vit(options, dim=768, num_heads=12, hidden=3072)


@BACKBONES.register_module()
def vit_b32(**options: Any) -> ViT:
    """88.2M parameters with the classifier of ImageNet."""
    return _vit(options, dim=768, num_heads=12, hidden=3072, patch_size=32)


@BACKBONES.register_module()
def vit_l16(**options: Any) -> ViT:
    """304.3M parameters with the classifier of ImageNet."""
    return _vit(options, dim=1024, depth=24, num_heads=16, hidden=4096)


@BACKBONES.register_module()
def vit_g14(**options: Any) -> ViT:
    """1.01B parameters with the classifier of ImageNet: g/14, "giant"."""
    return _vit(options, dim=1408, depth=40, num_heads=16, hidden=6144, patch_size=14)


@BACKBONES.register_module()
def vit_gigantic14(**options: Any) -> ViT:
    """1.84B parameters with the classifier of ImageNet: G/14, whose letter's case alone would tell it from g/14."""
    return _vit(options, dim=1664, depth=48, num_heads=16, hidden=8192, patch_size=14)
