"""MLP-Mixer: attention replaced by a perceptron across the cells of the image.

Paper: https://arxiv.org/abs/2105.01601
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densevit.backbones.plain import PlainBackbone
from densevit.backbones.rename import rename
from densevit.errors import ConfigError
from densevit.layers import GELUS, MLP, DropPath, PatchEmbed, drop_path_rates, init_lecun, init_xavier, same_size
from densevit.registry import BACKBONES

# Parts of names in timm and in the JAX release, "/" read as ".", and ours.
NAMES = (
    (r"^stem\.(proj\.)?", "patch_embed.proj."),
    (r"^MixerBlock_(\d+)\.", r"blocks.\1."),
    (r"^pre_head_layer_norm\.", "norm."),
    (r"\.LayerNorm_0\.", ".norm1."),
    (r"\.LayerNorm_1\.", ".norm2."),
    (r"\.token_mixing\.", ".mlp_tokens."),
    (r"\.channel_mixing\.", ".mlp_channels."),
    (r"\.Dense_0\.", ".fc1."),
    (r"\.Dense_1\.", ".fc2."),
    (r"\.(kernel|scale)$", ".weight"),
)


class TokenMixing(nn.Module):
    """Perceptron across cells, the same for every channel: tokens ``(N, L, C)`` to tokens.

    Its weights belong to the cells of one grid; on others `resize_weight` of them is used.
    """

    def __init__(self, grid: Sequence[int], hidden: int, approximate: str) -> None:
        super().__init__()
        self.grid = grid
        self.approximate = approximate
        self.fc1 = nn.Linear(math.prod(grid), hidden)
        self.fc2 = nn.Linear(hidden, math.prod(grid))

    def forward(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        parameters = {"fc1.weight": self.fc1.weight, "fc2.weight": self.fc2.weight, "fc2.bias": self.fc2.bias}
        read, write, bias = (resize_weight(name, value, self.grid, grid) for name, value in parameters.items())
        # Weights on the left, so that no tokens are transposed.
        hidden = torch.baddbmm(self.fc1.bias[:, None], read.expand(x.shape[0], -1, -1), x)
        hidden = F.gelu(hidden, approximate=self.approximate)
        return torch.baddbmm(bias[:, None], write.expand(x.shape[0], -1, -1), hidden)


class MixerBlock(nn.Module):
    """Perceptron across cells, then one across channels."""

    def __init__(
        self, grid: Sequence[int], dim: int, tokens_hidden: int, channels_hidden: int, approximate: str, rate: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp_tokens = TokenMixing(grid, tokens_hidden, approximate)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp_channels = MLP(dim, channels_hidden, approximate)
        self.drop_path = DropPath(rate)

    def forward(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        x = x + self.drop_path(self.mlp_tokens(self.norm1(x), grid))
        return x + self.drop_path(self.mlp_channels(self.norm2(x)))


@BACKBONES.register_module()
class MLPMixer(PlainBackbone):
    """Two perceptrons per block, across cells and across channels. Defaults are Mixer-S/16.

    Parameters are named as in timm, but for "patch_embed" in place of "stem". `translate` also knows the names and the
    layout of the JAX release.

    The weights across cells belong to the grid of ``img_size``. On any other grid they are resized bilinearly as maps
    of their cells, averaging where cells become fewer; those that read cells are multiplied by the old number of cells
    over the new one too, so that their sums keep their scale. On the grid of ``img_size`` they are used as they are.
    Weights that a file holds for images of another size are resized once in the same way. The paper has none of this:
    how well an image of another size is understood depends on how smooth the weights are; fine-tuning mends the rest.

    Args:
        in_channels: Channels of the images, which are padded by zeros to whole patches.
        img_size: Side, or height and width, of the images that the weights across cells are for.
        patch_size: Stride of the cells.
        dim: Channels of the cells.
        depth: Number of blocks.
        tokens_ratio: Hidden width of the perceptrons across cells over ``dim``.
        channels_ratio: Hidden width of the perceptrons across channels over ``dim``.
        gelu: "exact" as in timm, or "tanh" as in the JAX release, whose numbers want it.
        drop_path: Rate of stochastic depth at the last block.
        out_indices: Quarters of the blocks after which to return a map. By default the last, none with ``token``.
        token: Return the mean over the normed cells.
        frozen_stages: Number of first blocks that are not trained, and the patch embedding with them.

    Raises:
        ConfigError: Settings that contradict each other.
    """

    stem = ("patch_embed.",)
    tail = ("norm.",)
    weights_licence = "Apache-2.0"

    def __init__(
        self,
        in_channels: int = 3,
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        dim: int = 512,
        depth: int = 8,
        tokens_ratio: float = 0.5,
        channels_ratio: float = 4.0,
        gelu: str = "exact",
        drop_path: float = 0.0,
        out_indices: Sequence[int] | None = None,
        token: bool = False,
        frozen_stages: int = 0,
    ) -> None:
        super().__init__(in_channels, dim, depth, patch_size, out_indices, token)
        if gelu not in GELUS:
            raise ConfigError(f'gelu of MLPMixer is "exact" or "tanh", not {gelu!r}')
        self.set_grid(img_size)
        self.patch_embed = PatchEmbed(in_channels, dim, patch_size)
        hidden = int(dim * tokens_ratio), int(dim * channels_ratio)
        rates = drop_path_rates(drop_path, [depth])[0][: self.depth]
        self.blocks = nn.ModuleList(MixerBlock(self.grid, dim, *hidden, GELUS[gelu], rate) for rate in rates)
        if token:
            self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.apply(_init_weights)
        self.freeze_first(frozen_stages)

    def embed(self, x: Tensor) -> tuple[Tensor, Sequence[int]]:
        return self.patch_embed(x)

    def advance(self, block: nn.Module, x: Tensor, grid: Sequence[int]) -> Tensor:
        return self.run(block, x, grid)

    def pool(self, x: Tensor) -> Tensor:
        return self.norm(x).mean(dim=1)

    def adapt(self, key: str, value: Tensor) -> Tensor:
        _, _, name = key.partition(".mlp_tokens.")
        if not name:
            return value
        cells = value.shape[-1 if name == "fc1.weight" else 0]
        side = math.isqrt(cells)
        return resize_weight(name, value, (side, side), self.grid) if side**2 == cells else value

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the layout of timm and that of the JAX release, whose kernels are transposed."""
        return {
            rename(key, NAMES): _transpose(value) if key.endswith(".kernel") else value for key, value in state.items()
        }


def resize_weight(name: str, value: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """Return a parameter of `TokenMixing`, by its name in there, for another grid; the same tensor for the same grid.

    ``fc1.weight`` is ``(hidden, cells)``, ``fc2.weight`` is ``(cells, hidden)`` and ``fc2.bias`` is ``(cells,)``.
    """
    if same_size(old, new) or name == "fc1.bias":
        return value
    reads = name == "fc1.weight"
    maps = (value if reads else value.view(len(value), -1).T).unflatten(1, tuple(old))
    maps = maps[None].to(torch.promote_types(value.dtype, torch.float32))  # half precision is not implemented
    # Without antialias, cells between the samples would be lost where there become fewer.
    maps = F.interpolate(maps, tuple(new), mode="bilinear", antialias=True)[0].flatten(1).to(value.dtype)
    return maps * (math.prod(old) / math.prod(new)) if reads else maps.T.reshape(-1, *value.shape[1:])


def _transpose(kernel: Tensor) -> Tensor:
    """Return ``(out, in, *size)`` from a kernel ``(*size, in, out)``."""
    return kernel.movedim((-1, -2), (0, 1))


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        init_xavier(module)
    elif isinstance(module, nn.Conv2d):
        init_lecun(module)


def _mixer(options: dict[str, Any], **settings: Any) -> MLPMixer:
    return MLPMixer(**{**settings, **options})


@BACKBONES.register_module()
def mixer_s32(**options: Any) -> MLPMixer:
    """19.1M parameters with the classifier of ImageNet."""
    return _mixer(options, patch_size=32)


@BACKBONES.register_module()
def mixer_s16(**options: Any) -> MLPMixer:
    """18.5M parameters with the classifier of ImageNet."""
    return _mixer(options)


@BACKBONES.register_module()
def mixer_b32(**options: Any) -> MLPMixer:
    """60.3M parameters with the classifier of ImageNet."""
    return _mixer(options, patch_size=32, dim=768, depth=12)


@BACKBONES.register_module()
def mixer_b16(**options: Any) -> MLPMixer:
    """59.9M parameters with the classifier of ImageNet."""
    return _mixer(options, dim=768, depth=12)


@BACKBONES.register_module()
def mixer_l32(**options: Any) -> MLPMixer:
    """206.9M parameters with the classifier of ImageNet."""
    return _mixer(options, patch_size=32, dim=1024, depth=24)


@BACKBONES.register_module()
def mixer_l16(**options: Any) -> MLPMixer:
    """208.2M parameters with the classifier of ImageNet."""
    return _mixer(options, dim=1024, depth=24)
