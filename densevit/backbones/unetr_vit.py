"""The Vision Transformer of UNETR, for volumes.

Paper: https://arxiv.org/abs/2103.10504
"""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from densevit.backbones.plain import PlainBackbone, position_table
from densevit.backbones.rename import rename
from densevit.errors import ConfigError
from densevit.features import Features, check_heads, check_volumes
from densevit.layers import PatchEmbed, TransformerBlock, drop_path_rates, fit_positions, resize_positions
from densevit.registry import BACKBONES

PROJECTIONS = ("conv", "perceptron")
# MONAI's names, and ours. In a UNETR the network is called "vit".
NAMES = (
    (r"^vit\.", ""),
    (r"^patch_embedding\.position_embeddings$", "pos_embed"),
    (r"^patch_embedding\.patch_embeddings\.(1\.)?(?=weight|bias)", "patch_embed.proj."),
    (r"^(blocks\.\d+\.attn)\.out_proj\.", r"\1.proj."),
    (r"^(blocks\.\d+\.mlp)\.linear([12])\.", r"\1.fc\2."),
)
# MONAI's files have norms and attention to another input that are not used, old ones a class token too.
UNUSED = ("norm_cross_attn.", "cross_attn.", "patch_embedding.cls_token")


@BACKBONES.register_module()
class UNETRViT(PlainBackbone):
    """Blocks of attention over the patches of a volume ``(N, C, D, H, W)``, with a map for each skip of UNETR.

    All maps have the stride of the patches. Those at ``taps`` are tokens as they are, the last one is normed. The
    numbers are those of MONAI, whose files load. Defaults are those of the paper.

    Args:
        in_channels: Channels of the volumes.
        img_size: Side, or depth, height and width, of the volumes that the positions are for. For others these are
            resized linearly.
        patch_size: Side, or depth, height and width, of a patch.
        dim: Channels of the tokens.
        depth: Number of blocks.
        num_heads: Attention heads.
        hidden: Width of the feed-forward layers.
        taps: Blocks, counted from 1, after which there is a map; another is that of the tokens after the last.
        proj_type: How the projection of patches starts: as a convolution ("conv") or as a linear layer ("perceptron"),
            MONAI's words. What it computes is the same, and files of either load into either.
        qkv_bias: Whether queries, keys and values have biases.
        dropout_rate: Rate at which tokens, weights of the attention, hidden values and outputs of layers are dropped.
        drop_path: Rate of stochastic depth at the last block.
        out_indices: Maps to return: the positions of their blocks in ``taps``, and ``len(taps)`` for the last. By
            default all, none with ``token``. Blocks that none needs are not built.
        token: Return the mean of the last tokens to classify on; ours, as UNETR does not classify.
        frozen_stages: Number of first blocks that are not trained, and the embedding of the patches with them.

    Raises:
        ConfigError: Settings that contradict each other.
    """

    stem = ("patch_embed.", "pos_embed")
    tail = ("norm.",)
    no_weight_decay = ("pos_embed",)
    weights_licence = "Apache-2.0"

    def __init__(
        self,
        in_channels: int = 1,
        img_size: int | Sequence[int] = 96,
        patch_size: int | Sequence[int] = 16,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        hidden: int = 3072,
        taps: Sequence[int] = (4, 7, 10),
        proj_type: str = "conv",
        qkv_bias: bool = False,
        dropout_rate: float = 0.0,
        drop_path: float = 0.0,
        out_indices: Sequence[int] | None = None,
        token: bool = False,
        frozen_stages: int = 0,
    ) -> None:
        _check(taps, depth, proj_type)
        if out_indices is None and not token:
            out_indices = range(len(taps) + 1)
        patch, size = _triple("patch_size", patch_size), _triple("img_size", img_size)
        super().__init__(in_channels, dim, depth, patch, out_indices, token, ends=(*taps, depth))
        check_heads("UNETRViT", [dim], [num_heads])
        self.grid = tuple(-(-n // p) for n, p in zip(size, patch, strict=True))
        self.num_frames, self.img_size = size[0], size[-1]
        self.patch_embed = PatchEmbed(in_channels, dim, patch)
        self.pos_embed = position_table(math.prod(self.grid), dim)
        self.dropout = nn.Dropout(dropout_rate)
        rates = drop_path_rates(drop_path, [depth])[0][: self.depth]
        options: dict[str, Any] = {"eps": 1e-5, "qkv_bias": qkv_bias, "dropout": dropout_rate}
        self.blocks = nn.ModuleList(TransformerBlock(dim, num_heads, hidden, rate, **options) for rate in rates)
        self.normed = len(taps) in self.out_indices
        if self.normed or token:
            self.norm = nn.LayerNorm(dim)
        if proj_type == "perceptron":
            for name, value in self.patch_embed.proj.named_parameters():
                nn.init.zeros_(value) if name == "bias" else nn.init.trunc_normal_(value, std=0.02)
        self.freeze_first(frozen_stages)

    def check_input(self, x: Tensor) -> None:
        check_volumes(x, self.in_channels)

    def embed(self, x: Tensor) -> tuple[Tensor, Sequence[int]]:
        x, grid = self.patch_embed(x)
        return self.dropout(x + resize_positions(self.pos_embed, self.grid, grid)), grid

    def pool(self, x: Tensor) -> Tensor:
        return self.norm(x).mean(dim=1)

    def forward(self, x: Tensor) -> Features:
        maps, token = super().forward(x)
        if self.normed:
            maps = (*maps[:-1], self.norm(maps[-1].movedim(1, -1)).movedim(-1, 1))
        return Features(maps, token)

    def layer_groups(self) -> list[tuple[str, ...]]:
        groups = super().layer_groups()
        return [*groups, self.tail] if self.normed and not self.token_channels else groups

    def adapt(self, key: str, value: Tensor) -> Tensor:
        """Resize positions that are for a cube, and make a convolution of a linear layer over flattened patches."""
        if key == "patch_embed.proj.weight" and value.ndim == 2 and value.shape[1] % math.prod(self.divisor) == 0:
            return value.unflatten(1, (*self.divisor, -1)).movedim(-1, 1)
        return fit_positions(value, self.grid) if key == "pos_embed" else value

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename tensors of MONAI, and leave out those that it does not use."""
        return {rename(key, NAMES): value for key, value in state.items() if not any(part in key for part in UNUSED)}


def _triple(name: str, value: int | Sequence[int]) -> tuple[int, ...]:
    sizes = (value,) * 3 if isinstance(value, int) else tuple(value)
    if len(sizes) != 3 or min(sizes) < 1:
        raise ConfigError(f"{name} of UNETRViT is one positive number, or three of depth, height, width; not {value!r}")
    return sizes


def _check(taps: Sequence[int], depth: int, proj_type: str) -> None:
    if list(taps) != sorted(set(taps) & set(range(1, depth + 1))):
        raise ConfigError(f"taps of UNETRViT are increasing numbers of its {depth} blocks, from 1, not {tuple(taps)}")
    if proj_type not in PROJECTIONS:
        raise ConfigError(f"proj_type of UNETRViT is {' or '.join(map(repr, PROJECTIONS))}, not {proj_type!r}")


@BACKBONES.register_module()
def unetr_vit_s16(**options: Any) -> UNETRViT:
    """22.9M parameters, for volumes of 96 x 96 x 96; ours, half as wide."""
    return UNETRViT(**{"dim": 384, "num_heads": 6, "hidden": 1536, **options})


@BACKBONES.register_module()
def unetr_vit_b16(**options: Any) -> UNETRViT:
    """88.3M parameters, for volumes of 96 x 96 x 96; the paper's."""
    return UNETRViT(**options)
