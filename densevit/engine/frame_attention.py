"""Where a classifier of clips looks, frame by frame."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from densevit.backbones.framewise import Framewise
from densevit.backbones.mvit import MultiscaleBlock, MViT
from densevit.backbones.mvit_video import VideoMViT
from densevit.backbones.timesformer import TimeSformer
from densevit.backbones.vit import ViT
from densevit.engine.attention_maps import record_attention


def frame_attention(model: Any, x: Tensor) -> Tensor | None:
    """Return the weights ``(T, h, w)`` that the last attention gives to the cells of each frame, a mean over heads.

    They are those of the class token or, where the class is told from the mean of the cells, the mean over all cells
    that attend. With what the token gives to itself, all add up to 1:

    - Where the token attends to each frame by itself (divided attention, attention in space, image backbones), and the
      mean over frames follows, each frame has the same sum. Where a temporal transformer follows, the frames have the
      weights that its last block gives to them.
    - Cells of pooled keys are larger than those of the last map, and a cell of several frames has the same weight in
      each of them.

    Args:
        model: A `DenseModel`, in eval mode.
        x: One clip ``(1, C, T, H, W)`` as the network sees it.

    Returns:
        None for backbones whose last block does not attend to all cells of a frame: convolutions, attention between
        channels or in windows, and architectures that are unknown here.
    """
    net = model.backbone
    if isinstance(net, TimeSformer):
        return _of_timesformer(model, net, x)
    if isinstance(net, VideoMViT):
        return _of_mvit(model, net, x)
    if isinstance(net, Framewise) and isinstance(net.frames, ViT | MViT):
        return _of_framewise(model, net, net.frames, x)
    return None


def _of_timesformer(model: Any, net: TimeSformer, x: Tensor) -> Tensor:
    (weights,) = _record(model, x, [f"blocks.{len(net.blocks) - 1}.attn"])
    cells = _cells(weights, 1, net.token_channels > 0) / len(weights)  # one row, or one per frame
    return cells.reshape(x.shape[2], *_grid(x, net.divisor[1:]))


def _of_mvit(model: Any, net: VideoMViT, x: Tensor) -> Tensor | None:
    last = net.blocks[-1]
    assert isinstance(last, MultiscaleBlock), "what MViT is made of"
    if last.attn.window:
        return None
    with _grid_of_keys(last) as grid:
        (weights,) = _record(model, x, [f"blocks.{len(net.blocks) - 1}.attn"])
    prefix = last.attn.prefix
    cells = _cells(weights, prefix, prefix > 0 and net.token_channels > 0).reshape(grid)
    frames = torch.arange(x.shape[2], device=cells.device) * grid[0] // x.shape[2]
    return cells[frames] / frames.bincount(minlength=grid[0])[frames, None, None]


def _of_framewise(model: Any, net: Framewise, image: ViT | MViT, x: Tensor) -> Tensor | None:
    layers = [f"frames.blocks.{len(image.blocks) - 1}.attn"]
    if net.temporal is not None:
        layers.append(f"temporal.blocks.{len(net.temporal.blocks) - 1}.attn")
    if isinstance(image, MViT):
        last = image.blocks[-1]
        assert isinstance(last, MultiscaleBlock), "what MViT is made of"
        if last.attn.window:
            return None
        prefix, has_token = last.attn.prefix, last.attn.prefix > 0
        with _grid_of_keys(last) as grid:
            weights = _record(model, x, layers)
    else:
        prefix, has_token, grid = image.prefix, image.pooling != "gap", list(_grid(x, image.divisor))
        if image.pooling == "map" and image.token_channels:
            layers[0] = "frames.attn_pool"
        weights = _record(model, x, layers)
    cells = _cells(weights[0], prefix, has_token and image.token_channels > 0).reshape(x.shape[2], *grid)
    if net.temporal is None:
        return cells / len(cells)
    return cells * weights[1][0, 0, 1:, None, None]


def _record(model: Any, x: Tensor, layers: Sequence[str]) -> list[Tensor]:
    """Return the weights ``(N, L, S)`` of these layers of the backbone, means over heads."""
    with torch.no_grad(), record_attention(model.backbone, layers) as maps:
        model.network(x)
    return [found.weights.float().mean(dim=1) for found in maps]


def _cells(weights: Tensor, prefix: int, has_token: bool) -> Tensor:
    """Return the weights ``(N, cells)`` that the first token, or the mean of those of cells, gives to the cells."""
    return (weights[:, 0] if has_token else weights[:, prefix:].mean(dim=1))[:, prefix:]


def _grid(x: Tensor, stride: Sequence[int]) -> tuple[int, ...]:
    """Return the number of cells per axis of the plane."""
    return tuple(-(-n // s) for n, s in zip(x.shape[3:], stride, strict=True))


@contextmanager
def _grid_of_keys(block: MultiscaleBlock) -> Iterator[list[int]]:
    """Fill the list with the grid that keys are pooled to."""
    found: list[int] = []

    def note(module: nn.Module, args: tuple[Tensor, Sequence[int]]) -> None:
        found[:] = [-(-n // s) for n, s in zip(args[1], block.attn.strides["k"], strict=True)]

    hook = block.attn.register_forward_pre_hook(note)
    try:
        yield found
    finally:
        hook.remove()
