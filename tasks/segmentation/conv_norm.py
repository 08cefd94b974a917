"""The layer of which convolutional segmentation heads are made."""

from collections import OrderedDict

from torch import nn


def conv_norm_relu(in_channels: int, channels: int, kernel_size: int) -> nn.Sequential:
    """Return a convolution, batch norm and ReLU; parameters are ``conv.*`` and ``bn.*``, as in mmsegmentation."""
    conv = nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=True)))
