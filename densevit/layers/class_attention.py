"""Attention of the class token alone.

Paper: https://arxiv.org/abs/2103.17239
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densevit.layers.attention import attend
from densevit.layers.mlp import MLP


class ClassAttention(nn.Module):
    """The class token ``(N, 1, C)`` attends to itself and to the tokens ``(N, L, C)``, which need no queries."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, token: Tensor, tokens: Tensor) -> Tensor:
        dim = token.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(token, weight[:dim], bias[:dim])
        k, v = F.linear(torch.cat([token, tokens], dim=1), weight[dim:], bias[dim:]).chunk(2, dim=-1)
        return self.proj(attend(q, k, v, self.num_heads))


class ClassAttentionBlock(nn.Module):
    """Attention and feed-forward layer of the class token.

    What XCiT (https://arxiv.org/abs/2106.09681) does to the other tokens is in no paper, but its released weights were
    trained with it: their normed values are added to them, then they may be normed, then they are doubled.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, layer_scale: float, tokens_norm: bool) -> None:
        super().__init__()
        self.tokens_norm = tokens_norm
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = ClassAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.gamma1 = nn.Parameter(torch.full((dim,), layer_scale))
        self.gamma2 = nn.Parameter(torch.full((dim,), layer_scale))

    def forward(self, token: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        normed = self.norm1(tokens)
        token = self.norm2(torch.addcmul(token, self.gamma1, self.attn(self.norm1(token), normed)))
        tokens = torch.addcmul(tokens, self.gamma1, normed)
        if self.tokens_norm:
            tokens = self.norm2(tokens)
        return torch.addcmul(token, self.gamma2, self.mlp(token)), 2 * tokens
