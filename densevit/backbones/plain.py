"""What the architectures of one width on one grid have in common."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densevit.features import (
    Backbone,
    Features,
    FeatureSpec,
    check_clips,
    check_frozen,
    check_images,
    check_maps,
    select_maps,
)
from densevit.layers import fit_positions, freeze, to_map

LEVELS = 4


class PlainBackbone(Backbone):
    """Blocks that keep width and grid, with a map to take after each quarter of them, all of the same stride.

    The maps are the outputs of blocks as they are; the neck `SimplePyramid` makes a pyramid of one of them, or of all
    four. A subclass sets ``blocks``, and what its names say below.

    Args:
        in_channels: Channels of the images or clips.
        dim: Channels of the blocks.
        depth: Number of blocks.
        stride: Pixels per cell of the grid, along an axis of images, or per axis.
        out_indices: Quarters of the blocks after which to return a map, 0 to 3; blocks that none needs are not built.
            By default the last, none with ``token``. Where ``ends`` are given, positions in these.
        token: Whether the vector to classify on is asked for.
        ends: Blocks after which there is a map, if it is not after each quarter of them.

    Attributes:
        stem: Starts of the names of the parameters before the blocks.
        tail: Starts of the names of those after the blocks, which are there for the token only.
        positions: Name of the learnt positions, if there are any.
        prefix: Number of tokens before those of the cells.
        grid: Height and width of the grid that the positions are for, time having its own; depth too, of volumes.
    """

    blocks: nn.ModuleList
    stem: tuple[str, ...]
    tail: tuple[str, ...] = ()
    positions: str = ""
    prefix: int = 0
    grid: tuple[int, ...]

    def __init__(
        self,
        in_channels: int,
        dim: int,
        depth: int,
        stride: int | Sequence[int],
        out_indices: Sequence[int] | None,
        token: bool,
        ends: Sequence[int] = (),
    ) -> None:
        super().__init__()
        ends = ends or [max(depth * (i + 1) // LEVELS, 1) for i in range(LEVELS)]
        if out_indices is None and not token:
            out_indices = (len(ends) - 1,)
        self.in_channels = in_channels
        self.out_indices = select_maps(len(ends), out_indices, token)
        check_maps(type(self).__name__, len(ends), self.out_indices, token)
        ends = [ends[i] for i in self.out_indices]
        self.depth = depth if token else ends[-1]  # blocks to build
        self.taken = [ends.count(i + 1) for i in range(self.depth)]  # maps after each block
        self.divisor = (stride, stride) if isinstance(stride, int) else tuple(stride)
        self.specs = tuple(FeatureSpec(dim, self.divisor) for _ in self.out_indices)
        self.token_channels = dim if token else 0

    def set_grid(self, img_size: int | Sequence[int]) -> None:
        """Note the side, or height and width, of the images that positions are for."""
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.img_size = width
        self.grid = -(-height // self.divisor[-2]), -(-width // self.divisor[-1])

    def check_input(self, x: Tensor) -> None:
        """Raise `ValueError` unless ``x`` is a batch of images, or of clips where the grid has three axes."""
        (check_images if len(self.divisor) == 2 else check_clips)(x, self.in_channels)

    def embed(self, x: Tensor) -> tuple[Tensor, Sequence[int]]:
        """Return what the first block reads, and the grid of its cells: ``ceil(n / stride)`` per axis."""
        raise NotImplementedError

    def advance(self, block: nn.Module, x: Tensor, grid: Sequence[int]) -> Tensor:
        """Return the output of a block; a subclass whose blocks need the grid overrides this."""
        return self.run(block, x)

    def as_map(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        """Return the output of a block as a map; a subclass whose blocks give maps overrides this."""
        return to_map(x[:, self.prefix :], grid)

    def pool(self, x: Tensor) -> Tensor:
        """Return the vector ``(N, C)`` to classify on from the output of the last block."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Features:
        self.check_input(x)
        x, grid = self.embed(x)
        maps: list[Tensor] = []
        for block, count in zip(self.blocks, self.taken, strict=True):
            x = self.advance(block, x, grid)
            maps += [self.as_map(x, grid)] * count
        return Features(tuple(maps), self.pool(x) if self.token_channels else None)

    def layer_groups(self) -> list[tuple[str, ...]]:
        tail = [self.tail] if self.tail and self.token_channels else []
        return [self.stem, *((f"blocks.{i}.",) for i in range(self.depth)), *tail]

    def adapt(self, key: str, value: Tensor) -> Tensor:
        return fit_positions(value, self.grid, self.prefix) if key and key == self.positions else value

    def freeze_first(self, blocks: int) -> None:
        """Stop the training of the first ``blocks``, and of the stem if there are any."""
        check_frozen(type(self).__name__, self.depth, blocks)
        if blocks == 0:
            return
        for name, module in self.named_children():
            if f"{name}.".startswith(self.stem):
                freeze(module)
        for name, parameter in self.named_parameters(recurse=False):
            if name.startswith(self.stem):
                parameter.requires_grad_(False)
        for block in self.blocks[:blocks]:
            freeze(block)


def position_table(cells: int, dim: int, std: float = 0.02) -> nn.Parameter:
    """Return learnt positions ``(1, cells, dim)``."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, cells, dim), std=std))
