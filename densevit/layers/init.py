"""Weight initialisation, applied once by ``model.apply(function)``."""

import math

from torch import nn


def init_linear(module: nn.Module) -> None:
    """Fill linear layers by truncated normal, their biases by zero; leave all else as PyTorch fills it."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_weights(module: nn.Module) -> None:
    """Fill linear layers by truncated normal, convolutions by fan-out normal, their biases by zero."""
    init_linear(module)
    if isinstance(module, nn.Conv2d):
        fan_out = module.out_channels * math.prod(module.kernel_size) // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
