"""PyTorch's layers by the number of axes of the maps that they are for: two of images, three of clips and volumes."""

from collections.abc import Callable

from torch import nn

CONVS: dict[int, Callable[..., nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORMS: dict[int, Callable[..., nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
