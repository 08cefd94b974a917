"""TimeSformer: a Vision Transformer whose attention is extended to clips.

Paper: https://arxiv.org/abs/2102.05095
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densevit.backbones.plain import PlainBackbone, position_table
from densevit.backbones.timesformer_keys import from_image_model, official_names
from densevit.errors import ConfigError
from densevit.features import check_heads
from densevit.layers import (
    GELUS,
    PatchEmbed,
    SelfAttention,
    TransformerBlock,
    drop_path_rates,
    fit_positions,
    init_linear,
    resize_positions,
)
from densevit.registry import BACKBONES

ATTENTIONS = ("divided", "joint", "space")
# So the official code resizes positions on the way. Those that it loads it resizes along the flattened grid, which
# mixes up the columns; here both are the same.
INTERPOLATION = "nearest"


class DividedBlock(TransformerBlock):
    """Attention of each cell over time, then of each frame over its cells, then a feed-forward layer.

    The class token takes no part in the first. In the second each frame has a copy of it, and the mean of what the
    copies receive is added to it.
    """

    def __init__(self, dim: int, num_heads: int, hidden: int, drop_path: float, approximate: str) -> None:
        super().__init__(dim, num_heads, hidden, drop_path, approximate=approximate)
        self.temporal_norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.temporal_attn = SelfAttention(dim, num_heads)
        self.temporal_fc = nn.Linear(dim, dim)

    def forward(self, x: Tensor, frames: int = 1) -> Tensor:
        """Map tokens ``(N, 1 + T * L, C)`` to tokens: the class token, then frame by frame ``L`` cells."""
        token, cells = x[:, :1], x[:, 1:].unflatten(1, (frames, -1))
        cells = cells + self._over_time(cells)
        y = torch.cat([token.unsqueeze(1).expand(-1, frames, -1, -1), cells], dim=2)
        y = self.drop_path(self.attn(self.norm1(y.flatten(0, 1)))).unflatten(0, (-1, frames))
        token, cells = token + y[:, :, 0].mean(dim=1, keepdim=True), cells + y[:, :, 1:]
        x = torch.cat([token, cells.flatten(1, 2)], dim=1)
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _over_time(self, cells: Tensor) -> Tensor:
        """Return what ``(N, T, L, C)`` receives from the other frames. A path is dropped before the last layer."""
        y = self.temporal_norm1(cells.transpose(1, 2).flatten(0, 1))
        y = self.temporal_fc(self.drop_path(self.temporal_attn(y)))
        return y.unflatten(0, (cells.shape[0], -1)).transpose(1, 2)


@BACKBONES.register_module()
class TimeSformer(PlainBackbone):
    """Blocks of attention over the patches of all frames. Defaults and names are those of the official base model.

    Maps are ``(N, dim, T, H / patch_size, W / patch_size)``. Weights of a Vision Transformer, ours, timm's or those of
    big_vision, start it: attention over time begins as a copy of that over space, with no effect.

    Args:
        in_channels: Channels of the clips.
        img_size: Side, or height and width, of the frames that positions are for. For others the nearest are taken.
        num_frames: Frames that the positions in time are for. For others the nearest are taken.
        patch_size: Side of a patch.
        dim: Channels of the tokens.
        depth: Number of blocks.
        num_heads: Attention heads.
        hidden: Width of the feed-forward layers.
        attention: "divided": over time, then over space; "joint": over both at once; "space": within frames only, so
            that the token is the mean of those of the frames.
        positions_std: Standard deviation of the positions at first, in time too. By default that of the official code,
            which starts from an image model: 0.02, and zero in time. From scratch on little data, positions as strong
            as the patches make it learn much sooner what order frames have.
        gelu: "exact", or "tanh", with which big_vision trains.
        drop_path: Rate of stochastic depth at the last block.
        out_indices: Quarters of the blocks after which to return a map. By default the last, none with ``token``.
        token: Return the class token, normed, to classify on.
        frozen_stages: Number of first blocks that are not trained, and with them the embedding of the patches.

    Raises:
        ConfigError: Settings that contradict each other.
    """

    stem = ("patch_embed.", "pos_embed", "cls_token", "time_embed")
    tail = ("norm.",)
    prefix = 1
    no_weight_decay = ("pos_embed", "cls_token", "time_embed")
    weights_licence = "CC-BY-NC-4.0"

    def __init__(
        self,
        in_channels: int = 3,
        img_size: int | Sequence[int] = 224,
        num_frames: int = 8,
        patch_size: int = 16,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        hidden: int = 3072,
        attention: str = "divided",
        positions_std: float | None = None,
        gelu: str = "exact",
        drop_path: float = 0.1,
        out_indices: Sequence[int] | None = None,
        token: bool = False,
        frozen_stages: int = 0,
    ) -> None:
        super().__init__(in_channels, dim, depth, (1, patch_size, patch_size), out_indices, token)
        check_heads("TimeSformer", [dim], [num_heads])
        for name, value, known in (("attention", attention, ATTENTIONS), ("gelu", gelu, tuple(GELUS))):
            if value not in known:
                raise ConfigError(f"{name} of TimeSformer is one of {', '.join(map(repr, known))}, not {value!r}")
        if num_frames < 1:
            raise ConfigError(f"num_frames of TimeSformer is a positive number, not {num_frames}")
        self.set_grid(img_size)
        self.num_frames, self.attention = num_frames, attention
        self.patch_embed = PatchEmbed(in_channels, dim, patch_size)
        self.pos_embed = position_table(1 + self.grid[0] * self.grid[1], dim)
        self.cls_token = position_table(1, dim)
        if attention != "space":
            self.time_embed = nn.Parameter(torch.zeros(1, num_frames, dim))
        block = DividedBlock if attention == "divided" else TransformerBlock
        rates = drop_path_rates(drop_path, [depth])[0][: self.depth]
        self.blocks = nn.ModuleList(block(dim, num_heads, hidden, rate, approximate=GELUS[gelu]) for rate in rates)
        if token:
            self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.blocks.apply(init_linear)
        for module in self.blocks:
            if isinstance(module, DividedBlock):
                nn.init.zeros_(module.temporal_fc.weight)
        if positions_std is not None:
            for positions in (self.pos_embed, *([] if attention == "space" else [self.time_embed])):
                nn.init.normal_(positions, std=positions_std)
        self.freeze_first(frozen_stages)

    def embed(self, x: Tensor) -> tuple[Tensor, Sequence[int]]:
        frames = x.shape[2]
        # Frames in the layout from which tokens need no copy.
        x = x.movedim(1, -1).contiguous().flatten(0, 1).movedim(-1, 1)
        x, grid = self.patch_embed(x)
        positions = resize_positions(self.pos_embed, self.grid, grid, self.prefix, INTERPOLATION)
        token, table = self.cls_token + positions[:, :1], positions[:, None, 1:]
        if self.attention != "space":
            table = table + self._fit_time(self.time_embed, frames).unsqueeze(2)
        x = x.unflatten(0, (-1, frames)) + table
        if self.attention == "space":
            x = torch.cat([token.unsqueeze(1).expand(x.shape[0], frames, -1, -1), x], dim=2)
        else:
            x = torch.cat([token.expand(x.shape[0], -1, -1), x.flatten(1, 2)], dim=1)
        return x, (frames, *grid)

    def advance(self, block: nn.Module, x: Tensor, grid: Sequence[int]) -> Tensor:
        if self.attention == "divided":
            return self.run(block, x, grid[0])
        if self.attention == "space":  # frames are by themselves: (N, T, 1 + L, C)
            return self.run(block, x.flatten(0, 1)).unflatten(0, (-1, grid[0]))
        return self.run(block, x)

    def as_map(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        if self.attention == "space":
            return x[:, :, 1:].unflatten(2, tuple(grid[1:])).movedim(-1, 1)
        return super().as_map(x, grid)

    def pool(self, x: Tensor) -> Tensor:
        return self.norm(x[:, :, 0].mean(dim=1) if self.attention == "space" else x[:, 0])

    def adapt(self, key: str, value: Tensor) -> Tensor:
        if key == "pos_embed":
            return fit_positions(value, self.grid, self.prefix, INTERPOLATION)
        return self._fit_time(value, self.num_frames) if key == "time_embed" else value

    def from_images(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Complete the weights of a Vision Transformer with those of time, as the official code does."""
        return from_image_model(state, self.state_dict())

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename official checkpoints, those of transformers and mmaction2, and a Vision Transformer in JAX."""
        return official_names(state)

    @staticmethod
    def _fit_time(positions: Tensor, frames: int) -> Tensor:
        return resize_positions(positions, positions.shape[1:2], (frames,), mode=INTERPOLATION)


@BACKBONES.register_module()
def timesformer_base(**options: Any) -> TimeSformer:
    """121.6M parameters with the classifier of Kinetics-400, for 8 frames of 224 x 224."""
    return TimeSformer(**options)


@BACKBONES.register_module()
def timesformer_hr(**options: Any) -> TimeSformer:
    """122.0M parameters with the classifier of Kinetics-400, for 16 frames of 448 x 448."""
    return TimeSformer(**{"num_frames": 16, "img_size": 448, **options})


@BACKBONES.register_module()
def timesformer_large(**options: Any) -> TimeSformer:
    """121.6M parameters with the classifier of Kinetics-400, for 96 frames of 224 x 224."""
    return TimeSformer(**{"num_frames": 96, **options})


@BACKBONES.register_module()
def timesformer_joint_base(**options: Any) -> TimeSformer:
    """86.1M parameters with the classifier of Kinetics-400: attention over space and time at once."""
    return TimeSformer(**{"attention": "joint", **options})


@BACKBONES.register_module()
def timesformer_space_base(**options: Any) -> TimeSformer:
    """86.1M parameters with the classifier of Kinetics-400: no attention over time."""
    return TimeSformer(**{"attention": "space", **options})
