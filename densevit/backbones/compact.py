"""Compact transformers, which learn from little data: ViT-Lite, CVT and CCT.

Paper: https://arxiv.org/abs/2104.05704
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densevit.backbones.plain import PlainBackbone, position_table
from densevit.errors import ConfigError
from densevit.features import check_heads
from densevit.layers import (
    DropPath,
    SelfAttention,
    drop_path_rates,
    fit_positions,
    init_linear,
    pad_to_multiple,
    resize_positions,
    to_tokens,
)
from densevit.registry import BACKBONES

STEM_CHANNELS = 64
# The official code resizes positions so when it loads them for images of another size.
INTERPOLATION = "bilinear"


class Tokenizer(nn.Module):
    """Image to a map of cells: by convolutions that each are pooled, or by one that cuts it into patches.

    Args:
        in_channels: Channels of the image.
        dim: Channels of a cell.
        kernel_size: Of the convolutions; without any, the side of a patch.
        convolutions: Number of convolutions with pooling; 0 cuts into patches.
    """

    def __init__(self, in_channels: int, dim: int, kernel_size: int, convolutions: int) -> None:
        super().__init__()
        self.patch_size = 1 if convolutions else kernel_size
        channels = [in_channels, *[STEM_CHANNELS] * (convolutions - 1), dim]
        layers: list[nn.Module] = []
        for i in range(convolutions):
            stride, padding = _stride(kernel_size), max(kernel_size // 2, 1)
            conv = nn.Conv2d(channels[i], channels[i + 1], kernel_size, stride, padding, bias=False)
            # The official order is ReLU, then pooling: the same numbers, from four times as many operations.
            layers.append(nn.Sequential(conv, nn.MaxPool2d(3, 2, 1), nn.ReLU()))
        if not convolutions:
            layers.append(nn.Sequential(nn.Conv2d(in_channels, dim, kernel_size, kernel_size)))
        self.conv_layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_layers(pad_to_multiple(x, self.patch_size).contiguous(memory_format=torch.channels_last))


class EncoderBlock(nn.Module):
    """Attention and feed-forward layer; between them the stream of tokens itself is normed."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, attn_dropout: float, drop_path: float) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.pre_norm = nn.LayerNorm(dim)
        self.self_attn = SelfAttention(dim, num_heads, qkv_bias=False, dropout=attn_dropout)
        self.linear1 = nn.Linear(dim, hidden)
        self.norm1 = nn.LayerNorm(dim)
        self.linear2 = nn.Linear(hidden, dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.drop_path(self.self_attn(self.pre_norm(x))))
        return x + self.drop_path(self.linear2(F.gelu(self.linear1(x))))


@BACKBONES.register_module()
class CompactTransformer(PlainBackbone):
    """A short transformer on patches (ViT-Lite, CVT) or on convolved and pooled cells (CCT). Defaults are CCT-7/3x1.

    Parameters are named as officially, but for "classifier." in front of all but the tokenizer's.

    The official ``cvt_*_sine`` and ``cct_*_sine`` ignore the word and learn their positions. Here sinusoidal positions
    are what they say: a buffer that does not learn. A file brings its own, so that official files give the official
    numbers all the same.

    Args:
        in_channels: Channels of the images.
        img_size: Side, or height and width, of the images that the positions are for. For others these are resized
            bilinearly.
        dim: Channels of the tokens.
        depth: Number of blocks.
        num_heads: Attention heads.
        mlp_ratio: Width of the feed-forward layers over that of the tokens.
        kernel_size: Of the tokenizer's convolutions; without any, the side of a patch.
        convolutions: Number of convolutions with pooling in the tokenizer; 0 cuts the image into patches.
        class_token: Classify on a token of its own (ViT-Lite), not on the tokens' sum weighted by attention (CVT, CCT).
        positions: "learnt" or "sine".
        attn_dropout: Rate at which weights of the attention are dropped.
        drop_path: Rate of stochastic depth at the last block.
        out_indices: Quarters of the blocks after which to return a map. By default the last, none with ``token``.
        token: Return the vector to classify on.
        frozen_stages: Number of first blocks that are not trained, and the tokenizer with them.

    Raises:
        ConfigError: Settings that contradict each other.
    """

    stem = ("tokenizer.", "positional_emb", "class_emb")
    tail = ("norm.", "attention_pool.")
    positions = "positional_emb"
    no_weight_decay = ("positional_emb", "class_emb")
    weights_licence = "Apache-2.0"

    def __init__(
        self,
        in_channels: int = 3,
        img_size: int | Sequence[int] = 32,
        dim: int = 256,
        depth: int = 7,
        num_heads: int = 4,
        mlp_ratio: float = 2.0,
        kernel_size: int = 3,
        convolutions: int = 1,
        class_token: bool = False,
        positions: str = "learnt",
        attn_dropout: float = 0.1,
        drop_path: float = 0.1,
        out_indices: Sequence[int] | None = None,
        token: bool = False,
        frozen_stages: int = 0,
    ) -> None:
        stride = (2 * _stride(kernel_size)) ** convolutions if convolutions else kernel_size
        super().__init__(in_channels, dim, depth, stride, out_indices, token)
        check_heads("CompactTransformer", [dim], [num_heads])
        if positions not in ("learnt", "sine"):
            raise ConfigError(f'positions of CompactTransformer are "learnt" or "sine", not {positions!r}')
        self.set_grid(img_size)
        self.prefix = int(class_token)
        self.tokenizer = Tokenizer(in_channels, dim, kernel_size, convolutions)
        cells = self.prefix + math.prod(self.grid)
        if positions == "learnt":
            self.positional_emb = position_table(cells, dim, std=0.2)
        else:
            self.register_buffer("positional_emb", sinusoids(cells, dim))
        if class_token:
            self.class_emb = nn.Parameter(torch.zeros(1, 1, dim))
        rates = drop_path_rates(drop_path, [depth])[0][: self.depth]
        self.blocks = nn.ModuleList(EncoderBlock(dim, num_heads, mlp_ratio, attn_dropout, rate) for rate in rates)
        if token:
            self.norm = nn.LayerNorm(dim)
            if not class_token:
                self.attention_pool = nn.Linear(dim, 1)
        self.apply(_init_weights)
        self.freeze_first(frozen_stages)

    def embed(self, x: Tensor) -> tuple[Tensor, Sequence[int]]:
        x = self.tokenizer(x)
        grid, x = x.shape[2:], to_tokens(x)
        if self.prefix:
            x = torch.cat([self.class_emb.expand(x.shape[0], -1, -1), x], dim=1)
        return x + resize_positions(self.positional_emb, self.grid, grid, self.prefix, INTERPOLATION), grid

    def pool(self, x: Tensor) -> Tensor:
        if self.prefix:
            return self.norm(x[:, 0])
        x = self.norm(x)
        return (self.attention_pool(x).softmax(dim=1).mT @ x).squeeze(1)

    def adapt(self, key: str, value: Tensor) -> Tensor:
        return fit_positions(value, self.grid, self.prefix, INTERPOLATION) if key == self.positions else value

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Leave out the official "classifier." in front."""
        return {key.removeprefix("classifier."): value for key, value in state.items()}


def sinusoids(cells: int, dim: int) -> Tensor:
    """Return ``(1, cells, dim)``: sines of the number of a cell in even channels, cosines in odd ones.

    Paper: https://arxiv.org/abs/1706.03762, section 3.5
    """
    powers = torch.arange(dim, dtype=torch.float64).div(2, rounding_mode="floor") * (2 / dim)
    angles = torch.arange(cells, dtype=torch.float64)[:, None] / 10000**powers
    return torch.where(torch.arange(dim) % 2 == 0, angles.sin(), angles.cos()).float()[None]


def _stride(kernel_size: int) -> int:
    """Return the stride of a tokenizer's convolution; the pooling after it doubles that."""
    return max(kernel_size // 2 - 1, 1)


def _init_weights(module: nn.Module) -> None:
    init_linear(module)
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)


# Depth, width, heads and width of the feed-forward layers by the number that the names begin with.
SIZES: dict[int, dict[str, Any]] = {
    2: {"depth": 2, "dim": 128, "num_heads": 2, "mlp_ratio": 1.0},
    4: {"depth": 4, "dim": 128, "num_heads": 2, "mlp_ratio": 1.0},
    6: {"depth": 6, "dim": 256, "num_heads": 4, "mlp_ratio": 2.0},
    7: {"depth": 7, "dim": 256, "num_heads": 4, "mlp_ratio": 2.0},
    14: {"depth": 14, "dim": 384, "num_heads": 6, "mlp_ratio": 3.0},
}
# Names, as officially but for ViT-Lite's: depth, kernel size x number of convolutions or size of patches, image size.
VARIANTS: dict[str, dict[str, Any]] = {
    **{
        f"{family}_{depth}_4_32": {**SIZES[depth], "kernel_size": 4, "convolutions": 0, "class_token": lite}
        for family, lite in (("vit_lite", True), ("cvt", False))
        for depth in (2, 4, 6, 7)
    },
    **{
        f"cct_{depth}_{kernel}x{convs}_{size}": {
            **SIZES[depth],
            "kernel_size": kernel,
            "convolutions": convs,
            "img_size": size,
        }
        for depth, kernel, convs, size in (
            (2, 3, 2, 32),
            (4, 3, 2, 32),
            (6, 3, 1, 32),
            (6, 3, 2, 32),
            (7, 3, 1, 32),
            (7, 3, 2, 32),
            (7, 7, 2, 224),
            (14, 7, 2, 224),
            (14, 7, 2, 384),
        )
    },
}


def _variant(name: str, **settings: Any) -> Callable[..., CompactTransformer]:
    def build(**options: Any) -> CompactTransformer:
        return CompactTransformer(**{**settings, **options})

    build.__name__ = build.__qualname__ = name
    size, sine = settings.get("img_size", 32), settings.get("positions") == "sine"
    build.__doc__ = f"For images of {size} x {size}, with {'sinusoidal' if sine else 'learnt'} positions."
    return build


for _name, _settings in VARIANTS.items():
    BACKBONES.register_module(name=_name, module=_variant(_name, **_settings))
    BACKBONES.register_module(name=f"{_name}_sine", module=_variant(f"{_name}_sine", positions="sine", **_settings))
