"""The block of the Vision Transformer.

Paper: https://arxiv.org/abs/2010.11929
"""

from torch import Tensor, nn

from densevit.layers.attention import SelfAttention
from densevit.layers.drop_path import DropPath
from densevit.layers.mlp import MLP


class TransformerBlock(nn.Module):
    """Attention, then a feed-forward layer; each reads the normed tokens ``(N, L, C)`` and is added to them.

    Args:
        dim: Channels of the tokens.
        num_heads: Attention heads.
        hidden: Width of the feed-forward layer.
        drop_path: Rate of stochastic depth.
        eps: Of the norms.
        approximate: "none" or "tanh", see `torch.nn.GELU`.
        qkv_bias: Whether queries, keys and values have biases.
        dropout: Rate at which weights of the attention, hidden values and outputs of both layers are dropped.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden: int,
        drop_path: float = 0.0,
        eps: float = 1e-6,
        approximate: str = "none",
        qkv_bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = SelfAttention(dim, num_heads, qkv_bias, dropout)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = MLP(dim, hidden, approximate, dropout)
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.dropout(self.attn(self.norm1(x))))
        return x + self.drop_path(self.dropout(self.mlp(self.norm2(x))))
