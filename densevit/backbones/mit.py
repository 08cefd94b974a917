"""Mix Transformer (MiT), the backbone of SegFormer.

Paper: https://arxiv.org/abs/2105.15203
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

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
    DropPath,
    MixFFN,
    OverlapPatchEmbed,
    ReducedAttention,
    drop_path_rates,
    freeze,
    inflate_all,
    init_weights,
    to_map,
)
from densevit.registry import BACKBONES

KERNELS = (7, 3, 3, 3)
STRIDES = (4, 2, 2, 2)


class MiTBlock(nn.Module):
    """Attention to spatially reduced keys, then a feed-forward layer that sees the grid."""

    def __init__(
        self, dim: int, num_heads: int, reduction: int, mlp_ratio: float, drop_path: float, axes: int = 2
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = ReducedAttention(dim, num_heads, reduction, axes)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MixFFN(dim, int(dim * mlp_ratio), axes)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), grid))
        return x + self.drop_path(self.mlp(self.norm2(x), grid))


@BACKBONES.register_module()
class MiT(Backbone):
    """Four stages with strides 4, 8, 16, 32. Parameters are named as in the official release.

    With ``axes=3`` it is ours for volumes ``(N, C, D, H, W)``: the same layers along three axes. Weights for images,
    loaded into it, see of each volume the slices along the last two axes, until they learn.

    Args:
        in_channels: Channels of the input.
        dims: Channels of each stage.
        depths: Blocks of each stage.
        num_heads: Attention heads of each stage.
        reductions: Factor per stage by which the grid of keys and values is shrunk.
        mlp_ratio: Width of the feed-forward layers over that of the tokens.
        drop_path: Rate of stochastic depth at the last block.
        out_indices: Stages to return; those after the last of them are not built. By default all, none with ``token``.
        token: Return the mean of the last tokens, on which the official model classifies.
        frozen_stages: Number of first stages that are not trained.
        axes: 2 for images, 3 for volumes.

    Raises:
        ConfigError: Settings that contradict each other.
    """

    weights_licence = "NVIDIA, non-commercial"

    def __init__(
        self,
        in_channels: int = 3,
        dims: Sequence[int] = (32, 64, 160, 256),
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        reductions: Sequence[int] = (8, 4, 2, 1),
        mlp_ratio: float = 4.0,
        drop_path: float = 0.1,
        out_indices: Sequence[int] | None = None,
        token: bool = False,
        frozen_stages: int = 0,
        axes: int = 2,
    ) -> None:
        super().__init__()
        check_axes("MiT", axes)
        if not len(dims) == len(depths) == len(num_heads) == len(reductions) == len(STRIDES):
            raise ConfigError(f"MiT has {len(STRIDES)} stages: give as many dims, depths, num_heads and reductions")
        self.in_channels, self.axes, self.divisor = in_channels, axes, (32,) * axes
        self.depths = tuple(depths)
        self.out_indices = select_maps(len(STRIDES), out_indices, token)
        check_maps("MiT", len(STRIDES), self.out_indices, token)
        check_heads("MiT", dims, num_heads)
        self.num_stages = len(STRIDES) if token else max(self.out_indices) + 1
        check_frozen("MiT", self.num_stages, frozen_stages)
        self.token_channels = dims[-1] if token else 0
        rates, channels = drop_path_rates(drop_path, depths), (in_channels, *dims)
        for i in range(self.num_stages):
            dim, n = dims[i], i + 1
            blocks = [MiTBlock(dim, num_heads[i], reductions[i], mlp_ratio, rate, axes) for rate in rates[i]]
            self.add_module(f"patch_embed{n}", OverlapPatchEmbed(channels[i], dim, KERNELS[i], STRIDES[i], axes))
            self.add_module(f"block{n}", nn.ModuleList(blocks))
            self.add_module(f"norm{n}", nn.LayerNorm(dim, eps=1e-6))
        self.specs = tuple(FeatureSpec(dims[i], (4 << i,) * axes) for i in self.out_indices)
        # The grid of each stage must hold one window of its reduction.
        self.min_size = max((reductions[i] - 1) * (4 << i) + 1 for i in range(self.num_stages))
        self.apply(init_weights)
        for i in range(frozen_stages):
            for part in self._stage(i):
                freeze(part)

    def forward(self, x: Tensor) -> Features:
        check_input(x, self.in_channels, self.axes, self.min_size)
        maps = []
        for i in range(self.num_stages):
            embed, blocks, norm = self._stage(i)
            tokens, grid = embed(x)
            for block in blocks:
                tokens = self.run(block, tokens, grid)
            x = to_map(norm(tokens), grid)
            if i in self.out_indices:
                maps.append(x)
        return Features(tuple(maps), x.flatten(2).mean(dim=2) if self.token_channels else None)

    def layer_groups(self) -> list[tuple[str, ...]]:
        groups: list[tuple[str, ...]] = []
        for i in range(self.num_stages):
            blocks: list[tuple[str, ...]] = [(f"block{i + 1}.{j}.",) for j in range(self.depths[i])]
            blocks[-1] += (f"norm{i + 1}.",)
            groups += [(f"patch_embed{i + 1}.",), *blocks]
        return groups

    def from_images(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Complete weights for images, so that a volume of equal slices has in every slice the features of the image.

        The slices are those along the last two axes.
        """
        return inflate_all(state, self.state_dict())

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the layouts of transformers and of mmsegmentation 1.x."""
        state = {_official(k): v for k, v in state.items()}
        translated = {}
        for key, value in state.items():
            if ".attn.qkv." in key:
                dim = value.shape[0] // 3
                translated[key.replace("qkv", "q")], translated[key.replace("qkv", "kv")] = value.split((dim, 2 * dim))
            elif ".attn.k." in key:
                translated[key.replace("attn.k", "attn.kv")] = torch.cat(
                    [value, state[key.replace("attn.k", "attn.v")]]
                )
            elif ".attn.v." not in key:
                # mmsegmentation has 1x1 convolutions in place of the linear layers.
                translated[key] = value.flatten(1) if re.search(r"\.fc[12]\.weight$", key) else value
        return translated

    def _stage(self, i: int) -> tuple[nn.Module, nn.ModuleList, nn.Module]:
        return getattr(self, f"patch_embed{i + 1}"), getattr(self, f"block{i + 1}"), getattr(self, f"norm{i + 1}")


# Where a stage's parts lie: in files of transformers, in its models, in mmsegmentation.
_FOREIGN_STAGES = {
    r"patch_embeddings\.(\d)\.|stages\.(\d)\.patch_embeddings\.|layers\.(\d)\.0\.": "patch_embed",
    r"block\.(\d)\.|stages\.(\d)\.blocks\.|layers\.(\d)\.1\.": "block",
    r"layer_norm\.(\d)\.|stages\.(\d)\.layer_norm\.|layers\.(\d)\.2\.": "norm",
}
_FOREIGN_PARTS = {
    r"attention\.self\.query|attention\.q_proj": "attn.q",
    r"attention\.self\.key|attention\.k_proj": "attn.k",
    r"attention\.self\.value|attention\.v_proj": "attn.v",
    r"attn\.attn\.in_proj_": "attn.qkv.",
    r"attention\.output\.dense|attention\.o_proj|attn\.attn\.out_proj": "attn.proj",
    r"attention\.self\.sr|attention(\.sequence_reduction){2}": "attn.sr",
    r"attention\.self\.layer_norm|attention\.sequence_reduction\.layer_norm": "attn.norm",
    r"layer_norm_(?=[12])": "norm",
    r"layernorm_before": "norm1",
    r"layernorm_after": "norm2",
    r"mlp\.dense1|ffn\.layers\.0": "mlp.fc1",
    r"mlp\.dense2|ffn\.layers\.4": "mlp.fc2",
    r"ffn\.layers\.1": "mlp.dwconv.dwconv",
    r"projection": "proj",
    r"layer_norm": "norm",
}


def _official(key: str) -> str:
    key = re.sub(r"^(segformer\.)?(encoder\.)?", "", key)
    for pattern, part in _FOREIGN_STAGES.items():
        if match := re.match(pattern, key):
            stage = int(next(filter(None, match.groups()))) + 1
            key = f"{part}{stage}.{key[match.end() :]}"
            for foreign, ours in _FOREIGN_PARTS.items():
                key = re.sub(foreign, ours, key)
    return key


@BACKBONES.register_module()
def mit_b0(**options: Any) -> MiT:
    """3.3M parameters."""
    return MiT(**options)


def _wide(depths: tuple[int, ...], options: dict[str, Any]) -> MiT:
    return MiT(**{"dims": (64, 128, 320, 512), "depths": depths, **options})


@BACKBONES.register_module()
def mit_b1(**options: Any) -> MiT:
    """13.2M parameters."""
    return _wide((2, 2, 2, 2), options)


@BACKBONES.register_module()
def mit_b2(**options: Any) -> MiT:
    """24.2M parameters."""
    return _wide((3, 4, 6, 3), options)


@BACKBONES.register_module()
def mit_b3(**options: Any) -> MiT:
    """44.1M parameters."""
    return _wide((3, 4, 18, 3), options)


@BACKBONES.register_module()
def mit_b4(**options: Any) -> MiT:
    """60.8M parameters."""
    return _wide((3, 8, 27, 3), options)


@BACKBONES.register_module()
def mit_b5(**options: Any) -> MiT:
    """81.4M parameters."""
    return _wide((3, 6, 40, 3), options)
