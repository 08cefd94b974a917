"""CCT as one would first write it, for `backbones.py` to compare with: CCT is in no library.

The tokenizer applies ReLU to whole maps, then pools them; the logits and the softmax of attention are explicit. Names
of parameters are those of the official release, so that it loads what `densevit` loads.

Paper: https://arxiv.org/abs/2104.05704
"""

import torch
from torch import Tensor, nn

# Size of the images, classes, blocks, width, heads, width of the feed-forward layers; kernel, stride and padding of the
# two convolutions.
VARIANTS = {
    "cct_2_3x2_32": (32, 10, 2, 128, 2, 128, (3, 1, 1)),
    "cct_14_7x2_224": (224, 1000, 14, 384, 6, 1152, (7, 2, 3)),
}
STEM = 64


class Tokenizer(nn.Module):
    def __init__(self, dim: int, conv: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv_layers = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(before, after, *conv, bias=False), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
                for before, after in ((3, STEM), (STEM, dim))
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_layers(x).flatten(2).permute(0, 2, 1)


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        n, length, dim = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(n, length, dim))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.pre_norm, self.norm1 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.self_attn = Attention(dim, heads)
        self.linear1, self.linear2, self.act = nn.Linear(dim, hidden), nn.Linear(hidden, dim), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.self_attn(self.pre_norm(x)))
        return x + self.linear2(self.act(self.linear1(x)))


class Classifier(nn.Module):
    """Blocks on the tokens of the image, then their sum, weighted by a softmax over them."""

    def __init__(self, tokens: int, classes: int, depth: int, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.positional_emb = nn.Parameter(0.2 * torch.randn(1, tokens, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, hidden) for _ in range(depth))
        self.norm, self.attention_pool, self.fc = nn.LayerNorm(dim), nn.Linear(dim, 1), nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.positional_emb
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        weights = self.attention_pool(x).softmax(dim=1)
        return self.fc((weights.transpose(1, 2) @ x).squeeze(1))


class PlainCCT(nn.Module):
    """Logits of the classes of CIFAR-10 for images of 32 x 32, else of those of ImageNet."""

    def __init__(self, name: str) -> None:
        super().__init__()
        size, classes, depth, dim, heads, hidden, conv = VARIANTS[name]
        stride = (2 * conv[1]) ** 2
        self.tokenizer = Tokenizer(dim, conv)
        self.classifier = Classifier((size // stride) ** 2, classes, depth, dim, heads, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.tokenizer(x))
