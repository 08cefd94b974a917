"""The convolutions that heads of detectors begin with."""

from collections import OrderedDict

from torch import nn

from densevit.errors import ConfigError


def conv_tower(in_channels: int, channels: int, count: int, norm: bool = False) -> nn.Sequential:
    """Return convolutions of 3 x 3 cells with ReLU after each; parameters are ``N.conv.*``, as in mmdetection.

    Args:
        in_channels: Channels of the input.
        channels: Channels of every output.
        count: Number of convolutions.
        norm: Put batch norm, ``N.bn.*``, after each.

    Raises:
        ConfigError: ``count`` is negative, or ``channels`` below 1.
    """
    if count < 0 or channels < 1:
        raise ConfigError(
            f"a head cannot have {count} convolutions of {channels} channels: see its num_convs, channels"
        )
    layers = []
    for i in range(count):
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["conv"] = nn.Conv2d(channels if i else in_channels, channels, 3, padding=1, bias=not norm)
        if norm:
            parts["bn"] = nn.BatchNorm2d(channels)
        layers.append(nn.Sequential(OrderedDict(parts, relu=nn.ReLU(inplace=True))))
    return nn.Sequential(*layers)
