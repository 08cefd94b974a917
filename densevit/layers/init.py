"""Weight initialisation, applied once by ``model.apply(init_weights)``."""

import math

from torch import nn


def init_weights(module: nn.Module) -> None:
    """Fill linear layers by truncated normal, convolutions by fan-out normal, their biases by zero."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.out_channels * math.prod(module.kernel_size) // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
