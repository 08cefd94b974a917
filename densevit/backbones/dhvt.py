"""Dynamic Hybrid Vision Transformer (DHVT), which learns from little data.

Paper: https://arxiv.org/abs/2210.05958
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
    ChannelsLastGELU,
    DropPath,
    PointwiseConv2d,
    SelfAttention,
    drop_path_rates,
    halving_convs,
    init_linear,
    to_map,
    to_tokens,
)
from densevit.registry import BACKBONES

PATCH_SIZES = (2, 4, 8, 16)


class Affine(nn.Module):
    """Scale and shift of each channel of a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.beta, self.alpha, x)


class SequentialOverlappingPatchEmbed(nn.Module):
    """SOPE: halve the image by convolutions until a cell stands for a patch; scale and shift before and after.

    GELU lies between the convolutions, and after the only one of patches of 2 x 2.
    """

    def __init__(self, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        layers = halving_convs(in_channels, dim, patch_size)
        self.proj = nn.Sequential(*layers[: max(len(layers) - 1, 2)])
        self.pre_affine = Affine(in_channels)
        self.post_affine = Affine(dim)

    def forward(self, x: Tensor) -> Tensor:
        # Faster than from contiguous images, and the tokens of the result need no copy.
        return self.post_affine(self.proj(self.pre_affine(x.contiguous(memory_format=torch.channels_last))))


class HeadInteractedAttention(SelfAttention):
    """HI-MHSA: attention of the tokens ``(N, 1 + L, C)``, the class token first, and of one more token per head.

    A head token is made from what the head has of the mean token. After attention the class token gets their mean.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__(dim, num_heads)
        self.ht_proj = nn.Linear(dim // num_heads, dim)
        self.ht_norm = nn.LayerNorm(dim // num_heads)
        self.pos_embed = position_table(num_heads, dim)

    def forward(self, x: Tensor) -> Tensor:
        attended = super().forward(torch.cat([x, self.head_tokens(x)], dim=1))
        # In place, as putting parts together would copy all of them.
        attended[:, 0] += attended[:, -self.num_heads :].mean(dim=1)
        return attended[:, : -self.num_heads]

    def head_tokens(self, x: Tensor) -> Tensor:
        """Return one token per head, ``(N, heads, C)``."""
        heads = self.ht_proj(x.mean(dim=1).unflatten(-1, (self.num_heads, -1))).unflatten(-1, (self.num_heads, -1))
        return F.gelu(self.ht_norm(heads)).flatten(2) + self.pos_embed


class DynamicAggregationFFN(nn.Module):
    """DAFF: convolutions of the cells, whose mean weighs the channels of the class token, for ``(N, 1 + L, C)``.

    Without ``weigh_class`` the class token is left as it is.
    """

    def __init__(self, dim: int, hidden: int, weigh_class: bool) -> None:
        super().__init__()
        self.conv1 = PointwiseConv2d(dim, hidden)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = PointwiseConv2d(hidden, dim)
        self.bn3 = nn.BatchNorm2d(dim)
        self.act = ChannelsLastGELU()
        self.weigh_class = weigh_class
        if weigh_class:
            self.compress = nn.Linear(dim, dim // 4)
            self.excitation = nn.Linear(dim // 4, dim)

    def forward(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        token, cells = x[:, :1], to_map(x[:, 1:], grid)
        cells = self.act(self.bn1(self.conv1(cells)))
        cells = cells + self.act(self.bn2(self.conv2(cells)))
        cells = to_tokens(self.bn3(self.conv3(cells)))
        if self.weigh_class:
            token = token * self.excitation(F.gelu(self.compress(cells.mean(dim=1, keepdim=True))))
        return torch.cat([token, cells], dim=1)


class DHVTBlock(nn.Module):
    """Attention and feed-forward layer."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, drop_path: float, weigh_class: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = HeadInteractedAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = DynamicAggregationFFN(dim, int(dim * mlp_ratio), weigh_class)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x), grid))


@BACKBONES.register_module()
class DHVT(PlainBackbone):
    """Blocks with convolutions, on a grid of any size: padding tells them where they are, and nothing is resized.

    Parameters are named as officially. Without ``token`` the last block has no weights for the class token, which would
    reach no map. The defaults are DHVT-S for ImageNet.

    Args:
        in_channels: Channels of the images.
        patch_size: Stride of the blocks, 2, 4, 8 or 16.
        dim: Channels of the tokens.
        depth: Number of blocks.
        num_heads: Attention heads.
        mlp_ratio: Width of the feed-forward layers over that of the tokens.
        drop_path: Rate of stochastic depth at the last block.
        out_indices: Quarters of the blocks after which to return a map. By default the last, none with ``token``.
        token: Return the class token.
        frozen_stages: Number of first blocks that are not trained, and the stem with them.

    Raises:
        ConfigError: Settings that contradict each other.
    """

    stem = ("cls_token", "patch_embed.")
    tail = ("norm.",)
    prefix = 1
    no_weight_decay = ("cls_token",)

    def __init__(
        self,
        in_channels: int = 3,
        patch_size: int = 16,
        dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.1,
        out_indices: Sequence[int] | None = None,
        token: bool = False,
        frozen_stages: int = 0,
    ) -> None:
        if patch_size not in PATCH_SIZES:
            raise ConfigError(f"patch_size of DHVT is 2, 4, 8 or 16, not {patch_size}")
        check_heads("DHVT", [dim], [num_heads])
        super().__init__(in_channels, dim, depth, patch_size, out_indices, token)
        self.img_size = 224 if patch_size == 16 else 32
        self.patch_embed = SequentialOverlappingPatchEmbed(in_channels, dim, patch_size)
        self.cls_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, dim), std=0.02))
        self.blocks = nn.ModuleList(
            DHVTBlock(dim, num_heads, mlp_ratio, rate, weigh_class=token or i + 1 < self.depth)
            for i, rate in enumerate(drop_path_rates(drop_path, [depth])[0][: self.depth])
        )
        if token:
            self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.apply(init_linear)
        self.freeze_first(frozen_stages)

    def embed(self, x: Tensor) -> tuple[Tensor, Sequence[int]]:
        x = self.patch_embed(x)
        return torch.cat([self.cls_token.expand(x.shape[0], -1, -1), to_tokens(x)], dim=1), x.shape[2:]

    def advance(self, block: nn.Module, x: Tensor, grid: Sequence[int]) -> Tensor:
        return self.run(block, x, grid)

    def pool(self, x: Tensor) -> Tensor:
        return self.norm(x[:, 0])

    def adapt(self, key: str, value: Tensor) -> Tensor:
        """Repeat the scales and shifts of the input for more channels, as is done with the convolution after them."""
        known = value.shape[1] if value.ndim == 4 else 0
        if not key.startswith("patch_embed.pre_affine.") or known in (0, self.in_channels):
            return value
        if self.in_channels == 1:
            return value.mean(dim=1, keepdim=True)
        return value[:, torch.arange(self.in_channels) % known]


def _dhvt(options: dict[str, Any], **settings: Any) -> DHVT:
    return DHVT(**{**settings, **options})


@BACKBONES.register_module()
def dhvt_tiny_cifar_patch4(**options: Any) -> DHVT:
    """6.0M parameters with the classifier of CIFAR-100."""
    return _dhvt(options, patch_size=4, dim=192, num_heads=4)


@BACKBONES.register_module()
def dhvt_small_cifar_patch4(**options: Any) -> DHVT:
    """23.4M parameters with the classifier of CIFAR-100."""
    return _dhvt(options, patch_size=4, dim=384, num_heads=8)


@BACKBONES.register_module()
def dhvt_tiny_cifar_patch2(**options: Any) -> DHVT:
    """5.8M parameters with the classifier of CIFAR-100."""
    return _dhvt(options, patch_size=2, dim=192, num_heads=4)


@BACKBONES.register_module()
def dhvt_small_cifar_patch2(**options: Any) -> DHVT:
    """22.8M parameters with the classifier of CIFAR-100."""
    return _dhvt(options, patch_size=2, dim=384, num_heads=8)


@BACKBONES.register_module()
def dhvt_tiny_domain_patch16(**options: Any) -> DHVT:
    """6.1M parameters with the classifier of DomainNet."""
    return _dhvt(options, dim=192, num_heads=4)


@BACKBONES.register_module()
def dhvt_small_domain_patch16(**options: Any) -> DHVT:
    """23.8M parameters with the classifier of DomainNet."""
    return DHVT(**options)


@BACKBONES.register_module()
def dhvt_tiny_imagenet_patch16(**options: Any) -> DHVT:
    """6.3M parameters with the classifier of ImageNet."""
    return _dhvt(options, dim=192, num_heads=3)


@BACKBONES.register_module()
def dhvt_small_imagenet_patch16(**options: Any) -> DHVT:
    """24.0M parameters with the classifier of ImageNet."""
    return DHVT(**options)
