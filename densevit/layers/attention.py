"""Attention over tokens ``(N, L, C)``."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densevit.layers.by_axes import CONVS
from densevit.layers.shape import to_map, to_tokens


def attend(q: Tensor, k: Tensor, v: Tensor, num_heads: int, dropout: float = 0.0) -> Tensor:
    """Multi-head scaled dot-product attention: ``(N, L, C)`` and twice ``(N, S, C)`` to ``(N, L, C)``.

    Each weight of the attention is dropped with probability ``dropout``.
    """
    q, k, v = (x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout).transpose(1, 2).flatten(2)


def attend_biased(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Scaled dot-product attention of ``(N, heads, L, D)`` and twice ``(N, heads, S, D)`` with a bias on the logits.

    Where the bias is to learn, PyTorch has no fused kernel on the CPU: it makes more passes than the definition needs,
    and does so even while no gradient is asked for.
    """
    if q.device.type == "cpu" and bias.requires_grad:
        if torch.is_grad_enabled():
            return ((q * q.shape[-1] ** -0.5) @ k.mT).add_(bias).softmax(dim=-1) @ v
        bias = bias.detach()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))


class AttentionTap(nn.Identity):
    """Passes on the weights ``(N, heads, L, S)`` of attention that no fused kernel computes, for others to hook."""


class SelfAttention(nn.Module):
    """Attention of all tokens ``(N, L, C)`` to all; in training its weights are dropped with rate ``dropout``."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj(attend(q, k, v, self.num_heads, self.dropout if self.training else 0.0))


class ReducedAttention(nn.Module):
    """Attention whose keys and values come from the grid shrunk ``reduction`` times by a strided convolution."""

    def __init__(self, dim: int, num_heads: int, reduction: int, axes: int = 2) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.reduction = reduction
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        if reduction > 1:
            self.sr = CONVS[axes](dim, dim, reduction, reduction)
            self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        context = x
        if self.reduction > 1:
            context = self.norm(to_tokens(self.sr(to_map(x, grid))))
        k, v = self.kv(context).chunk(2, dim=-1)
        return self.proj(attend(self.q(x), k, v, self.num_heads))
