"""MViT for clips: versions 1 and 2 of the papers' action recognition, and a small one of ours.

Papers: https://arxiv.org/abs/2104.11227, https://arxiv.org/abs/2112.01526
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from densevit.backbones.mvit import VERSION1, MViT, learnt
from densevit.features import check_clips
from densevit.layers import fit_positions, inflate_all, resize_positions
from densevit.registry import BACKBONES


@BACKBONES.register_module()
class VideoMViT(MViT):
    """`MViT` of clips ``(N, C, T, H, W)``, pooled in the plane alone. Defaults are those of MViTv2-S, 16 x 4.

    Positions that are absolute are the sum of one of the cell in its frame and one of the frame. Clips of other lengths
    and sizes interpolate them.

    Args:
        img_size: Height and width of the frames for which positions are learnt.
        num_frames: Length of the clips for which they are.
        depths: Blocks of each stage.
        patch_kernel: Kernel of the first convolution in time, height and width.
        patch_stride: Its stride, likewise.
        pool_kernel: Kernel of the pooling in attention, likewise.
        q_stride: Stride of the queries in the first block of each stage but the first, likewise.
        kv_stride: Stride of keys and values in the first stage, likewise; it shrinks as the grid does.
        class_token: Carry a token on which to classify; if not, the mean of the last tokens serves.
        drop_path: Rate of stochastic depth at the last block.
        **options: The other arguments of `MViT`.

    Raises:
        ConfigError: Settings that contradict each other.
    """

    axes = 3
    clips_only = ("cls_token", "pos_embed_class")

    def __init__(
        self,
        img_size: int = 224,
        num_frames: int = 16,
        depths: Sequence[int] = (1, 2, 11, 2),
        patch_kernel: Sequence[int] = (3, 7, 7),
        patch_stride: Sequence[int] = (2, 4, 4),
        pool_kernel: Sequence[int] = (3, 3, 3),
        q_stride: Sequence[int] = (1, 2, 2),
        kv_stride: Sequence[int] = (1, 8, 8),
        class_token: bool = True,
        drop_path: float = 0.2,
        **options: Any,
    ) -> None:
        super().__init__(
            img_size=(num_frames, img_size, img_size),
            depths=depths,
            patch_kernel=patch_kernel,
            patch_stride=patch_stride,
            pool_kernel=pool_kernel,
            q_stride=q_stride,
            kv_stride=kv_stride,
            class_token=class_token,
            drop_path=drop_path,
            **options,
        )
        self.num_frames = num_frames

    def adapt(self, key: str, value: Tensor) -> Tensor:
        if key == "pos_embed_spatial":
            return fit_positions(value, self.grid[1:])
        if key == "pos_embed_temporal":
            return resize_positions(value, value.shape[1:2], self.grid[:1])
        return super().adapt(key, value)

    def from_images(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Complete weights of `MViT`, so that clips of equal frames have in every frame the features of the image.

        That is exact without a class token. One token among the cells of many frames has less weight than among those
        of one, and if the image model has none, the clips' stays as it was and is to be trained.
        """
        stem = state.get("patch_embed.proj.weight")
        if stem is None or stem.ndim != 4:
            return state
        own = self.state_dict()
        completed = inflate_all(state, own)
        if "pos_embed" in state and "pos_embed_spatial" in own:
            prefix = int("cls_token" in state)
            joint = completed.pop("pos_embed")
            completed["pos_embed_spatial"] = joint[:, prefix:]
            completed["pos_embed_temporal"] = joint.new_zeros(own["pos_embed_temporal"].shape)
            if prefix:
                completed["pos_embed_class"] = joint[:, :1]
        tables = [key for key in own if key.endswith(".rel_pos_t") and f"{key[:-1]}h" in state]
        return completed | {key: state[f"{key[:-1]}h"].new_zeros(own[key].shape) for key in tables}

    def _check_input(self, x: Tensor) -> None:
        check_clips(x, self.in_channels, self.min_size)

    def _learn_positions(self, dim: int) -> None:
        self.pos_embed_spatial = learnt(1, math.prod(self.grid[1:]), dim)
        self.pos_embed_temporal = learnt(1, self.grid[0], dim)
        if self.cls_token is not None:
            self.pos_embed_class = learnt(1, 1, dim)

    def _positions(self, grid: Sequence[int]) -> Tensor:
        space = resize_positions(self.pos_embed_spatial, self.grid[1:], grid[1:])
        time = resize_positions(self.pos_embed_temporal, self.grid[:1], grid[:1])
        cells = (time.unsqueeze(2) + space.unsqueeze(1)).flatten(1, 2)
        return cells if self.cls_token is None else torch.cat([self.pos_embed_class, cells], dim=1)


@BACKBONES.register_module()
def mvitv1_b_16x4(**options: Any) -> VideoMViT:
    """36.3M parameters, 70.6 GMACs a clip."""
    return VideoMViT(**{**VERSION1, **options})


@BACKBONES.register_module()
def mvitv2_s_16x4(**options: Any) -> VideoMViT:
    """34.2M parameters, 64.2 GMACs a clip."""
    return VideoMViT(**options)


@BACKBONES.register_module()
def mvitv2_b_32x3(**options: Any) -> VideoMViT:
    """50.9M parameters, 224.5 GMACs a clip."""
    return VideoMViT(**{"num_frames": 32, "depths": (2, 3, 16, 3), "drop_path": 0.3, **options})


@BACKBONES.register_module()
def mvitv2_l_40x3(**options: Any) -> VideoMViT:
    """212.9M parameters, 2823 GMACs a clip of 312 x 312. Unlike in `mvitv2_l`, the width changes in attention."""
    large: dict[str, Any] = {"dims": (144, 288, 576, 1152), "num_heads": (2, 4, 8, 16), "depths": (2, 6, 36, 4)}
    return VideoMViT(**{**large, "img_size": 312, "num_frames": 40, "drop_path": 0.75, **options})


@BACKBONES.register_module()
def mvitv2_xs_16(**options: Any) -> VideoMViT:
    """3.7M parameters, 3.2 GMACs a clip of 112 x 112: `mvitv2_xs` for clips, ours, without a class token."""
    small: dict[str, Any] = {"dims": (48, 96, 192, 384), "depths": (1, 2, 4, 1), "kv_stride": (1, 4, 4)}
    return VideoMViT(**{**small, "img_size": 112, "class_token": False, "drop_path": 0.1, **options})
