"""CMT as one would first write it, for `backbones.py` to compare with: CMT is in no library.

Maps are ``(N, C, H, W)`` between convolutions and are permuted to tokens for attention, whose logits and softmax are
explicit. Names of parameters are those of the official release, so that it loads what `densevit` loads.

Paper: https://arxiv.org/abs/2107.06263
"""

import torch
from torch import Tensor, nn

# Size of the images, channels of the stem and of the stages, blocks, width of the feed-forward layers.
VARIANTS = {
    "cmt_ti": (160, 16, (46, 92, 184, 368), (2, 2, 10, 2), 3.6),
    "cmt_xs": (192, 16, (52, 104, 208, 416), (3, 3, 12, 3), 3.77),
    "cmt_s": (224, 32, (64, 128, 256, 512), (3, 3, 16, 3), 4.0),
    "cmt_b": (256, 38, (76, 152, 304, 608), (4, 4, 20, 4), 4.0),
}
HEADS = (1, 2, 4, 8)
REDUCTIONS = (8, 4, 2, 1)


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))
        if reduction > 1:
            self.sr = nn.Sequential(nn.Conv2d(dim, dim, reduction, reduction, groups=dim), nn.BatchNorm2d(dim))

    def forward(self, x: Tensor, height: int, width: int, bias: Tensor) -> Tensor:
        n, length, dim = x.shape
        context = x
        if hasattr(self, "sr"):
            context = x.permute(0, 2, 1).reshape(n, dim, height, width)
            context = self.sr(context).reshape(n, dim, -1).permute(0, 2, 1)
        q, k, v = (
            layer(y).reshape(n, -1, self.heads, dim // self.heads).permute(0, 2, 1, 3)
            for layer, y in ((self.q, x), (self.k, context), (self.v, context))
        )
        weights = (q @ k.transpose(-2, -1) * self.scale + bias).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(n, length, dim))


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(dim, hidden, 1), nn.GELU(), nn.BatchNorm2d(hidden))
        self.proj = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act, self.proj_bn = nn.GELU(), nn.BatchNorm2d(hidden)
        self.conv2 = nn.Sequential(nn.Conv2d(hidden, dim, 1), nn.BatchNorm2d(dim))

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        n, length, dim = x.shape
        y = self.conv1(x.permute(0, 2, 1).reshape(n, dim, height, width))
        y = self.conv2(self.proj_bn(self.act(self.proj(y) + y)))
        return y.reshape(n, dim, length).permute(0, 2, 1)


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, reduction: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads, reduction)
        self.mlp = FeedForward(dim, hidden)

    def forward(self, x: Tensor, height: int, width: int, bias: Tensor) -> Tensor:
        n, length, dim = x.shape
        y = x.permute(0, 2, 1).reshape(n, dim, height, width)
        x = (self.proj(y) + y).reshape(n, dim, length).permute(0, 2, 1)
        x = x + self.attn(self.norm1(x), height, width, bias)
        return x + self.mlp(self.norm2(x), height, width)


class PatchEmbed(nn.Module):
    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.proj, self.norm = nn.Conv2d(channels, dim, 2, 2), nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        x = self.proj(x)
        return self.norm(x.flatten(2).permute(0, 2, 1)), x.shape[2], x.shape[3]


class PlainCMT(nn.Module):
    """Logits of the classes of ImageNet.

    Args:
        name: Variant.
        img_size: Side of the images, a multiple of 32; the paper's for the variant if not given.
    """

    def __init__(self, name: str, img_size: int | None = None) -> None:
        super().__init__()
        default_size, stem, dims, depths, ratio = VARIANTS[name]
        size = img_size or default_size
        for i, channels in enumerate((3, stem, stem), start=1):
            self.add_module(f"stem_conv{i}", nn.Conv2d(channels, stem, 3, 2 if i == 1 else 1, padding=1))
            self.add_module(f"stem_norm{i}", nn.BatchNorm2d(stem))
        for i, stage in enumerate("abcd"):
            cells, dim = (size // (4 << i)) ** 2, dims[i]
            position = torch.randn(HEADS[i], cells, cells // REDUCTIONS[i] ** 2)
            blocks = [Block(dim, HEADS[i], REDUCTIONS[i], int(dim * ratio)) for _ in range(depths[i])]
            self.register_parameter(f"relative_pos_{stage}", nn.Parameter(position))
            self.add_module(f"patch_embed_{stage}", PatchEmbed(dims[i - 1] if i else stem, dim))
            self.add_module(f"blocks_{stage}", nn.ModuleList(blocks))
        self._fc, self._bn = nn.Conv2d(dims[-1], 1280, 1), nn.BatchNorm2d(1280)
        self.head = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        for i in (1, 2, 3):
            x = getattr(self, f"stem_norm{i}")(nn.functional.gelu(getattr(self, f"stem_conv{i}")(x)))
        for stage in "abcd":
            x, height, width = getattr(self, f"patch_embed_{stage}")(x)
            for block in getattr(self, f"blocks_{stage}"):
                x = block(x, height, width, getattr(self, f"relative_pos_{stage}"))
            x = x.permute(0, 2, 1).reshape(x.shape[0], x.shape[2], height, width)
        x = nn.functional.silu(self._bn(self._fc(x)))
        return self.head(x.mean(dim=(2, 3)))
