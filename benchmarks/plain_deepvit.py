"""DeepViT as one would first write it, for `backbones.py` to compare with: DeepViT is in no library.

The maps of attention are mixed by a convolution, normed and scaled one after the other, and the input of each branch is
multiplied before its norm. Names of parameters are those of the official release, so that it loads what `densevit`
loads.

Paper: https://arxiv.org/abs/2103.11886
"""

import torch
from torch import Tensor, nn

# Width, first block with re-attention, whether that is scaled, factor on the input of the branches, whether
# convolutions come before the patches.
VARIANTS = {
    "deepvit_16b": (384, 0, False, 1.0, False),
    "deepvit_s": (396, 11, True, 0.5, True),
}
DEPTH, HEADS, MLP_RATIO, PATCH, TOKENS = 16, 12, 3, 16, 14**2


class PatchEmbed(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).permute(0, 2, 1)


class ConvPatchEmbed(nn.Module):
    def __init__(self, dim: int, stem: int = 64) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, stem, 7, 2, padding=3, bias=False), nn.BatchNorm2d(stem)
        self.conv2, self.bn2 = nn.Conv2d(stem, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem)
        self.act, self.proj = nn.ReLU(), nn.Conv2d(stem, dim, PATCH // 2, PATCH // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn1(self.conv1(x)))
        x = self.act(self.bn2(self.conv2(x)))
        return self.proj(x).flatten(2).permute(0, 2, 1)


class Attention(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        n, length, dim = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, HEADS, dim // HEADS).permute(2, 0, 3, 1, 4)
        weights = self.mix((q @ k.transpose(-2, -1) * (dim // HEADS) ** -0.5).softmax(dim=-1))
        return self.proj((weights @ v).transpose(1, 2).reshape(n, length, dim))

    def mix(self, weights: Tensor) -> Tensor:
        return weights


class ReAttention(Attention):
    def __init__(self, dim: int, scale: float) -> None:
        super().__init__(dim)
        self.scale = scale
        self.reatten_matrix, self.var_norm = nn.Conv2d(HEADS, HEADS, 1), nn.BatchNorm2d(HEADS)

    def mix(self, weights: Tensor) -> Tensor:
        return self.var_norm(self.reatten_matrix(weights)) * self.scale


class MLP(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(dim, MLP_RATIO * dim), nn.GELU(), nn.Linear(MLP_RATIO * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, attention: nn.Module, dim: int, adjustment: float) -> None:
        super().__init__()
        self.adjustment = adjustment
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn, self.mlp = attention, MLP(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x * self.adjustment)) / self.adjustment
        return x + self.mlp(self.norm2(x * self.adjustment)) / self.adjustment


class PlainDeepViT(nn.Module):
    """Logits of the classes of ImageNet for images of 224 x 224."""

    def __init__(self, name: str) -> None:
        super().__init__()
        dim, first, scaled, adjustment, convolutions = VARIANTS[name]
        self.patch_embed = ConvPatchEmbed(dim) if convolutions else PatchEmbed(dim)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + TOKENS, dim))
        scale = (dim // HEADS) ** -0.5 if scaled else 1.0
        attentions = [ReAttention(dim, scale) if i >= first else Attention(dim) for i in range(DEPTH)]
        self.blocks = nn.ModuleList(Block(attention, dim, adjustment) for attention in attentions)
        self.norm, self.head = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])
