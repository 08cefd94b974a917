"""RoIAlign: the features of a box, from the level of a pyramid that suits its size.

Papers: https://arxiv.org/abs/1703.06870, section 3; https://arxiv.org/abs/1612.03144, section 4.2
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from densevit.errors import ConfigError
from densevit.features import Maps, Specs

MAX_LEVELS = 4  # coarser ones serve proposals only
CELLS = 14  # a box is read where its side is 14 cells, or up to twice that


class RoIPool:
    """Bilinear samples of maps on a grid in each box.

    Args:
        specs: Levels, fine to coarse, each half the size of the one before; the first `MAX_LEVELS` are read.

    Raises:
        ConfigError: A stride differs by axis.
    """

    def __init__(self, specs: Specs) -> None:
        self.strides = [spec.stride[0] for spec in specs[:MAX_LEVELS]]
        if any(spec.stride != (stride, stride) for spec, stride in zip(specs, self.strides, strict=False)):
            raise ConfigError(
                "heads that read boxes want one stride for both axes, "
                f"not {[spec.stride for spec in specs]}: take RetinaHead"
            )

    def __call__(self, maps: Maps, boxes: Sequence[Tensor], size: int) -> Tensor:
        """Return ``(n, C, size, size)`` for ``boxes`` ``(n, 4)`` of the first image, then of the second, and so on."""
        return self._read(maps, torch.cat([F.pad(x, (1, 0), value=float(i)) for i, x in enumerate(boxes)]), size)

    def batch(self, maps: Maps, boxes: Tensor, size: int) -> Tensor:
        """Return the same for as many boxes in each image, ``(N, n, 4)``. It goes into a graph, see `Head.export`."""
        images = torch.arange(boxes.shape[0], device=boxes.device)[:, None, None].expand(-1, boxes.shape[1], 1)
        return self._read(maps, torch.cat([images.to(boxes), boxes], dim=-1).flatten(0, 1), size)

    def _read(self, maps: Maps, rois: Tensor, size: int) -> Tensor:
        """Return ``(n, C, size, size)`` for ``(n, 5)``: the index of an image and a box in it."""
        levels = self.level_of(rois[:, 1:])
        pooled, places = [], []
        for level, stride in enumerate(self.strides):
            x = maps[level].to(torch.promote_types(maps[level].dtype, torch.float32))  # torchvision has no bf16
            places.append((levels == level).nonzero()[:, 0])
            pooled.append(roi_align(x, rois[places[-1]].to(x.dtype), size, 1 / stride, sampling_ratio=0, aligned=True))
        order = torch.cat(places)
        back = torch.zeros_like(levels).index_put((order,), torch.arange(order.shape[0], device=order.device))
        return torch.cat(pooled).index_select(0, back)

    def level_of(self, boxes: Tensor) -> Tensor:
        """Return the level ``(n,)`` that each of ``(n, 4)`` is read from."""
        side = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()
        level = (side / (CELLS * self.strides[0]) + 1e-6).log2().floor()
        return level.clamp(0, len(self.strides) - 1).long()
