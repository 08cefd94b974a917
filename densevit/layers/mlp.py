"""Feed-forward layers."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from densevit.layers.by_axes import CONVS
from densevit.layers.shape import to_map, to_tokens

GELUS = {"tanh": "tanh", "exact": "none"}  # formulas of GELU, and what PyTorch calls them


class MLP(nn.Module):
    """Two linear layers with GELU between them, on the last axis; ``approximate`` is that of PyTorch's GELU.

    In training what GELU gives is dropped with rate ``dropout``.
    """

    def __init__(self, dim: int, hidden: int, approximate: str = "none", dropout: float = 0.0) -> None:
        super().__init__()
        self.approximate = approximate
        self.dropout = dropout
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.fc1(x), approximate=self.approximate)
        return self.fc2(F.dropout(x, self.dropout, self.training))


class DWConv(nn.Module):
    """Depthwise convolution of tokens on their grid, with a kernel of size 3."""

    def __init__(self, dim: int, axes: int = 2) -> None:
        super().__init__()
        self.dwconv = CONVS[axes](dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        return to_tokens(self.dwconv(to_map(x, grid)))


class MixFFN(nn.Module):
    """Two linear layers around a depthwise convolution, whose zero padding carries position."""

    def __init__(self, dim: int, hidden: int, axes: int = 2) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = DWConv(hidden, axes)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        return self.fc2(F.gelu(self.dwconv(self.fc1(x), grid)))
