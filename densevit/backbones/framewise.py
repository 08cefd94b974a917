"""Backbones of images on clips, frame by frame, and on volumes, slice by slice.

Paper: https://arxiv.org/abs/2103.15691, whose model 2, the factorised encoder, is a ViT and a temporal transformer
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densevit.backbones.plain import position_table
from densevit.contract import build_backbone
from densevit.errors import ConfigError
from densevit.features import Backbone, Features, FeatureSpec, check_heads
from densevit.layers import TransformerBlock, drop_path_rates, init_linear, resize_positions
from densevit.registry import BACKBONES, accepted_keys

TEMPORAL = ("mean", "transformer")


class TemporalTransformer(nn.Module):
    """Tokens of frames ``(N, T, C)`` to one of the clip ``(N, C)``, for which a class token attends to them.

    Args:
        dim: Channels of the tokens.
        depth: Number of blocks.
        num_heads: Attention heads.
        num_frames: Frames that the learnt positions are for. For others these are resized linearly.
        drop_path: Rate of stochastic depth at the last block.
    """

    def __init__(self, dim: int, depth: int, num_heads: int, num_frames: int, drop_path: float) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.time_embed = position_table(num_frames, dim)
        rates = drop_path_rates(drop_path, [depth])[0]
        self.blocks = nn.Sequential(*(TransformerBlock(dim, num_heads, 4 * dim, rate) for rate in rates))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.apply(init_linear)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.positions(x.shape[1])
        x = self.blocks(torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1))
        return self.norm(x[:, 0])

    def positions(self, frames: int) -> Tensor:
        """Return the positions ``(1, frames, C)``."""
        return resize_positions(self.time_embed, self.time_embed.shape[1:2], (frames,))


@BACKBONES.register_module()
class Framewise(Backbone):
    """A backbone of images on the frames of clips ``(N, C, T, H, W)``, each of which it sees by itself.

    Maps are those of the frames, ``(N, C, T, H', W')``. Parameters of the image backbone are named as its own, after
    "frames."; its weights, in any layout that it can load, are loaded as they are. Volumes ``(N, C, D, H, W)`` are
    clips of slices, if their first axis is the one to cut them along (axcodes "SPL" for axial slices).

    Args:
        backbone: Config of the image backbone, without ``out_indices`` and ``token``.
        temporal: How tokens of frames become one of the clip: by their "mean", or by a "transformer". An image
            backbone without a token gives the mean over space of the last map that is asked for.
        depth: Blocks of the transformer.
        num_heads: Its attention heads.
        num_frames: Frames of the clips that its learnt positions are for. For others these are resized.
        drop_path: Its rate of stochastic depth at the last block.
        out_indices: Maps of the image backbone to return. By default those it returns by default, none with ``token``.
        token: Return the vector of the clip to classify on. Without it there is no transformer.

    Raises:
        ConfigError: Settings that contradict each other.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        temporal: str = "mean",
        depth: int = 4,
        num_heads: int = 12,
        num_frames: int = 16,
        drop_path: float = 0.0,
        out_indices: Sequence[int] | None = None,
        token: bool = False,
    ) -> None:
        super().__init__()
        _check(backbone, temporal, depth, num_frames)
        net = _build(backbone, out_indices, token)
        if len(net.divisor) != 2:
            raise ConfigError(f"Framewise wants a backbone of images, which {backbone['type']} is not")
        self.frames = net
        # A last map that only the token is made of is not returned.
        self.returns_maps = out_indices is not None or not token
        self.specs = tuple(FeatureSpec(s.channels, (1, *s.stride)) for s in net.specs) if self.returns_maps else ()
        self.divisor = (1, *net.divisor)
        self.in_channels, self.img_size, self.num_frames = net.in_channels, net.img_size, num_frames
        self.weights_licence = net.weights_licence
        self.no_weight_decay = net.no_weight_decay
        self.dense_only = tuple(f"frames.{start}" for start in net.dense_only)
        self.temporal: TemporalTransformer | None = None
        if token:
            self.token_channels = net.token_channels or net.specs[-1].channels
            if temporal == "transformer":
                check_heads("the temporal transformer", [self.token_channels], [num_heads])
                self.temporal = TemporalTransformer(self.token_channels, depth, num_heads, num_frames, drop_path)
                self.no_weight_decay += ("cls_token", "time_embed")
                self.clips_only = ("temporal.",)

    def forward(self, x: Tensor) -> Features:
        if x.ndim != 5:
            raise ValueError(f"expected clips (N, C, T, H, W), got {tuple(x.shape)}")
        count = x.shape[2]
        maps, token = self.frames(x.transpose(1, 2).flatten(0, 1))
        if self.token_channels:
            token = (maps[-1].mean(dim=(2, 3)) if token is None else token).unflatten(0, (-1, count))
            token = token.mean(dim=1) if self.temporal is None else self.run(self.temporal, token)
        maps = tuple(m.unflatten(0, (-1, count)).transpose(1, 2) for m in maps) if self.returns_maps else ()
        return Features(maps, token)

    @property
    def checkpointing(self) -> bool:
        """Whether activations are computed again in the backward pass, in the image backbone too."""
        return self.frames.checkpointing

    @checkpointing.setter
    def checkpointing(self, enable: bool) -> None:
        self.frames.checkpointing = enable

    def layer_groups(self) -> list[tuple[str, ...]]:
        groups = [tuple(f"frames.{start}" for start in group) for group in self.frames.layer_groups()]
        if self.temporal is None:
            return groups
        blocks: list[tuple[str, ...]] = [(f"temporal.blocks.{i}.",) for i in range(len(self.temporal.blocks))]
        blocks[0] += ("temporal.cls_token", "temporal.time_embed")
        return [*groups, *blocks, ("temporal.norm.",)]

    def adapt(self, key: str, value: Tensor) -> Tensor:
        if key.startswith("frames."):
            return self.frames.adapt(key.removeprefix("frames."), value)
        if key == "temporal.time_embed":
            return resize_positions(value, value.shape[1:2], (self.num_frames,))
        return value

    def from_images(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the weights of the image backbone; the temporal transformer has none in them."""
        if any(key.startswith("frames.") for key in state):
            return state
        own = self.frames.state_dict().keys()
        return {f"frames.{k}" if k in own else k: value for k, value in self.frames.translate(state).items()}


def _build(backbone: Mapping[str, Any], out_indices: Sequence[int] | None, token: bool) -> Backbone:
    """Build the image backbone so that it returns what is asked for, and nothing else where it can be told."""
    known = accepted_keys(BACKBONES.get(backbone["type"]))
    has_token = known is None or "token" in known
    options: dict[str, Any] = {"token": True} if token and has_token else {}
    if out_indices is not None:
        options["out_indices"] = out_indices
    elif token and not has_token and "out_indices" in (known or ()):
        with torch.device("meta"):
            whole: Any = build_backbone(backbone)
        options["out_indices"] = whole.out_indices[-1:]
    return build_backbone({**backbone, **options})


def _check(backbone: Mapping[str, Any], temporal: str, depth: int, num_frames: int) -> None:
    BACKBONES.check(backbone)
    given = sorted({"out_indices", "token"} & backbone.keys())
    if given:
        raise ConfigError(f"{' and '.join(given)} of Framewise: give them to it, not to its backbone")
    if temporal not in TEMPORAL:
        raise ConfigError(f"temporal of Framewise is one of {', '.join(map(repr, TEMPORAL))}, not {temporal!r}")
    if min(depth, num_frames) < 1:
        raise ConfigError(f"depth and num_frames of Framewise are positive, not {depth} and {num_frames}")


def _factorised(vit: dict[str, Any], backbone: Mapping[str, Any] | None, options: dict[str, Any]) -> Framewise:
    vit = {"pool": "tok", **vit, **(backbone or {})}
    return Framewise(**{"backbone": vit, "temporal": "transformer", "drop_path": vit["drop_path"], **options})


@BACKBONES.register_module()
def factorised_vit_b16(
    in_channels: int = 3,
    drop_path: float = 0.0,
    frozen_stages: int = 0,
    backbone: Mapping[str, Any] | None = None,
    **options: Any,
) -> Framewise:
    """ViT-B/16 on each frame: 114.5M parameters with the classifier of Kinetics-400.

    The paper's 115.1M have patches two frames deep.

    Args:
        in_channels: Channels of the frames.
        drop_path: Rate of stochastic depth at the last block, of the ViT and of what follows in time.
        frozen_stages: Number of first blocks of the ViT that are not trained.
        backbone: Further arguments of the ViT.
        **options: Further arguments of `Framewise`.
    """
    vit = {"type": "vit_b16", "in_channels": in_channels, "drop_path": drop_path, "frozen_stages": frozen_stages}
    return _factorised(vit, backbone, options)


@BACKBONES.register_module()
def factorised_vit_ti16(
    in_channels: int = 3,
    drop_path: float = 0.0,
    frozen_stages: int = 0,
    backbone: Mapping[str, Any] | None = None,
    **options: Any,
) -> Framewise:
    """ViT-Ti/16 on each frame: 7.4M parameters with the classifier of Kinetics-400.

    Args:
        in_channels: Channels of the frames.
        drop_path: Rate of stochastic depth at the last block, of the ViT and of what follows in time.
        frozen_stages: Number of first blocks of the ViT that are not trained.
        backbone: Further arguments of the ViT.
        **options: Further arguments of `Framewise`.
    """
    vit = {"type": "vit_ti16", "in_channels": in_channels, "drop_path": drop_path, "frozen_stages": frozen_stages}
    return _factorised(vit, backbone, {"num_heads": 3, **options})
