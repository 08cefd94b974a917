"""ConvMixer: patches, mixed by depthwise and pointwise convolutions of one width.

Paper: https://arxiv.org/abs/2201.09792
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densevit.backbones.plain import PlainBackbone
from densevit.errors import ConfigError
from densevit.layers import ChannelsLastGELU, DropPath, PointwiseConv2d, drop_path_rates, pad_to_multiple
from densevit.registry import BACKBONES

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"gelu": ChannelsLastGELU, "relu": nn.ReLU}


class Residual(nn.Module):
    """A branch that is added to what it reads."""

    def __init__(self, fn: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.fn = fn
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.fn(x))


def activated(conv: nn.Conv2d, activation: str) -> list[nn.Module]:
    """Return a convolution, its activation and, in this order, its batch norm."""
    return [conv, ACTIVATIONS[activation](), nn.BatchNorm2d(conv.out_channels)]


def mixer_block(dim: int, kernel_size: int, activation: str, drop_path: float) -> nn.Sequential:
    """Return a depthwise convolution with a residual, then a pointwise one without."""
    depthwise = nn.Conv2d(dim, dim, kernel_size, padding="same", groups=dim)
    branch = nn.Sequential(*activated(depthwise, activation))
    return nn.Sequential(Residual(branch, drop_path), *activated(PointwiseConv2d(dim, dim), activation))


@BACKBONES.register_module()
class ConvMixer(PlainBackbone):
    """Convolutions only, at one width and one stride. Defaults are ConvMixer-1536/20.

    Parameters are named as in timm, but for "patch_embed" in place of "stem". `translate` also knows the official
    names, which are numbers of layers.

    Args:
        in_channels: Channels of the images, which are padded by zeros to whole patches.
        patch_size: Stride of the cells.
        dim: Channels of the cells.
        depth: Number of blocks.
        kernel_size: Of the depthwise convolutions.
        activation: "gelu", or "relu" for official weights that were trained with it.
        drop_path: Rate of stochastic depth at the last block, of its depthwise convolution.
        out_indices: Quarters of the blocks after which to return a map. By default the last, none with ``token``.
        token: Return the mean over the cells.
        frozen_stages: Number of first blocks that are not trained, and the patch embedding with them.

    Raises:
        ConfigError: Settings that contradict each other.
    """

    stem = ("patch_embed.",)
    weights_licence = "MIT"

    def __init__(
        self,
        in_channels: int = 3,
        patch_size: int = 7,
        dim: int = 1536,
        depth: int = 20,
        kernel_size: int = 9,
        activation: str = "gelu",
        drop_path: float = 0.0,
        out_indices: Sequence[int] | None = None,
        token: bool = False,
        frozen_stages: int = 0,
    ) -> None:
        super().__init__(in_channels, dim, depth, patch_size, out_indices, token)
        if activation not in ACTIVATIONS:
            raise ConfigError(f'activation of ConvMixer is "gelu" or "relu", not {activation!r}')
        self.patch_size = patch_size
        self.patch_embed = nn.Sequential(*activated(nn.Conv2d(in_channels, dim, patch_size, patch_size), activation))
        rates = drop_path_rates(drop_path, [depth])[0][: self.depth]
        self.blocks = nn.ModuleList(mixer_block(dim, kernel_size, activation, rate) for rate in rates)
        self.freeze_first(frozen_stages)

    def embed(self, x: Tensor) -> tuple[Tensor, Sequence[int]]:
        # Maps of this layout stay so through all blocks, without copies.
        x = pad_to_multiple(x, self.patch_size).contiguous(memory_format=torch.channels_last)
        x = self.patch_embed(x)
        return x, x.shape[2:]

    def as_map(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        return x

    def pool(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the official layers, which are counted: 0 to 2 the patches, then the blocks, last the classifier."""
        return {_rename(key): value for key, value in state.items()}


def _rename(key: str) -> str:
    if re.match(r"[02]\.", key):
        return f"patch_embed.{key}"
    if match := re.fullmatch(r"(\d+)\.(\d.*)", key):
        return f"blocks.{int(match[1]) - 3}.{match[2]}"
    return re.sub(r"^stem\.", "patch_embed.", re.sub(r"^\d+\.", "head.", key))


def _convmixer(options: dict[str, Any], **settings: Any) -> ConvMixer:
    return ConvMixer(**{**settings, **options})


@BACKBONES.register_module()
def convmixer_1536_20(**options: Any) -> ConvMixer:
    """51.6M parameters with the classifier of ImageNet."""
    return _convmixer(options)


@BACKBONES.register_module()
def convmixer_768_32(**options: Any) -> ConvMixer:
    """21.1M parameters with the classifier of ImageNet. The weights released for it want ``activation="relu"``."""
    return _convmixer(options, dim=768, depth=32, kernel_size=7)


@BACKBONES.register_module()
def convmixer_1024_20_ks9_p14(**options: Any) -> ConvMixer:
    """24.4M parameters with the classifier of ImageNet."""
    return _convmixer(options, dim=1024, patch_size=14)


@BACKBONES.register_module()
def convmixer_256_8(**options: Any) -> ConvMixer:
    """0.6M parameters with a classifier of 10 classes, for images of 32 x 32."""
    backbone = _convmixer(options, dim=256, depth=8, kernel_size=5, patch_size=2)
    backbone.img_size = 32
    return backbone
