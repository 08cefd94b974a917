"""Feed-forward layers."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from densevit.layers.shape import to_map, to_tokens

GELUS = {"tanh": "tanh", "exact": "none"}  # formulas of GELU, and what PyTorch calls them


class MLP(nn.Module):
    """Two linear layers with GELU between them, on the last axis; ``approximate`` is that of PyTorch's GELU."""

    def __init__(self, dim: int, hidden: int, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))


class DWConv(nn.Module):
    """Depthwise 3x3 convolution of tokens on their grid."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        return to_tokens(self.dwconv(to_map(x, grid)))


class MixFFN(nn.Module):
    """Two linear layers around a depthwise convolution, whose zero padding carries position."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = DWConv(hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        return self.fc2(F.gelu(self.dwconv(self.fc1(x), grid)))
