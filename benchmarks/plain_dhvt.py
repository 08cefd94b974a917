"""DHVT as one would first write it, for `backbones.py` to compare with: DHVT is in no library.

Maps are ``(N, C, H, W)`` in the stem and the feed-forward layers and are permuted to tokens for attention, whose logits
and softmax are explicit. Names of parameters are those of the official release, so that it loads what `densevit` loads.

Paper: https://arxiv.org/abs/2210.05958
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

# Side of a patch, classes, width, heads.
VARIANTS = {
    "dhvt_tiny_cifar_patch4": (4, 100, 192, 4),
    "dhvt_small_imagenet_patch16": (16, 1000, 384, 6),
}
DEPTH = 12


class Affine(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.alpha + self.beta


class PatchEmbed(nn.Module):
    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        halvings = patch.bit_length() - 1
        channels = [3, *(dim // 2**i for i in reversed(range(halvings)))]
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            conv = nn.Conv2d(before, after, 3, 2, padding=1, bias=False)
            layers += [nn.Sequential(conv, nn.BatchNorm2d(after)), nn.GELU()]
        self.pre_affine, self.post_affine = Affine(3), Affine(dim)
        self.proj = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.post_affine(self.proj(self.pre_affine(x))).flatten(2).permute(0, 2, 1)


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.width = heads, dim // heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.ht_proj, self.ht_norm = nn.Linear(self.width, dim), nn.LayerNorm(self.width)
        self.act, self.pos_embed = nn.GELU(), nn.Parameter(0.02 * torch.randn(1, heads, dim))

    def forward(self, x: Tensor) -> Tensor:
        n, length, dim = x.shape
        tokens = x.reshape(n, length, self.heads, self.width).permute(0, 2, 1, 3).mean(dim=2)
        tokens = self.ht_proj(tokens).reshape(n, self.heads, self.heads, self.width)
        tokens = self.act(self.ht_norm(tokens)).reshape(n, self.heads, dim) + self.pos_embed
        x = torch.cat([x, tokens], dim=1)
        q, k, v = self.qkv(x).reshape(n, -1, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * self.width**-0.5).softmax(dim=-1)
        x = self.proj((weights @ v).transpose(1, 2).reshape(n, -1, dim))
        token, cells, tokens = x.split([1, length - 1, self.heads], dim=1)
        return torch.cat([token + tokens.mean(dim=1, keepdim=True), cells], dim=1)


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(dim, hidden, 1), nn.BatchNorm2d(hidden)
        self.conv2, self.bn2 = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden), nn.BatchNorm2d(hidden)
        self.conv3, self.bn3 = nn.Conv2d(hidden, dim, 1), nn.BatchNorm2d(dim)
        self.compress, self.excitation, self.act = nn.Linear(dim, dim // 4), nn.Linear(dim // 4, dim), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        n, length, dim = x.shape
        side = int((length - 1) ** 0.5)
        token, cells = x.split([1, length - 1], dim=1)
        cells = cells.permute(0, 2, 1).reshape(n, dim, side, side)
        cells = self.act(self.bn1(self.conv1(cells)))
        cells = cells + self.act(self.bn2(self.conv2(cells)))
        cells = self.bn3(self.conv3(cells)).flatten(2).permute(0, 2, 1)
        factor = self.excitation(self.act(self.compress(cells.mean(dim=1, keepdim=True))))
        return torch.cat([token * factor, cells], dim=1)


class Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn, self.mlp = Attention(dim, heads), FeedForward(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PlainDHVT(nn.Module):
    """Logits of the classes of CIFAR-100 or ImageNet, from square images."""

    def __init__(self, name: str) -> None:
        super().__init__()
        patch, classes, dim, heads = VARIANTS[name]
        self.patch_embed = PatchEmbed(patch, dim)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(DEPTH))
        self.norm, self.head = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])
