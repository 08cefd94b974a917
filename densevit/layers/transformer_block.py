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
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden: int,
        drop_path: float = 0.0,
        eps: float = 1e-6,
        approximate: str = "none",
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = SelfAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = MLP(dim, hidden, approximate)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))
