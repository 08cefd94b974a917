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
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        fan_out = module.out_channels * math.prod(module.kernel_size) // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_xavier(layer: nn.Linear) -> None:
    """Fill uniformly with variance 2 / (inputs + outputs), and the bias by nearly nothing, as MLPs in JAX."""
    nn.init.xavier_uniform_(layer.weight)
    nn.init.normal_(layer.bias, std=1e-6)


def init_lecun(layer: nn.Conv2d | nn.Conv3d | nn.Linear) -> None:
    """Fill with variance 1 / inputs, normally within two deviations, as in JAX."""
    # The cut leaves 0.8796 of a deviation.
    std = layer.weight[0].numel() ** -0.5 / 0.87962566
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
