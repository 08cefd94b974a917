"""Feature pyramid network.

Paper: https://arxiv.org/abs/1612.03144
"""

import re
from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from densevit.errors import ConfigError
from densevit.features import FeatureSpec, Maps, Neck, Specs
from densevit.registry import NECKS, suggestion

EXTRAS = ("max_pool", "on_input", "on_output")
# What detectron2 calls the convolutions, and numbers by level.
_DETECTRON2 = {"fpn_lateral": "lateral_convs", "fpn_output": "fpn_convs", "top_block.p": "fpn_convs"}
_DETECTRON2_KEY = re.compile(r"(fpn_lateral|fpn_output|top_block\.p)(\d)\.")


@NECKS.register_module()
class FPN(Neck):
    """Bring every level to one width and add to it what is seen at the coarser ones.

    Parameters are named as in mmdetection and mmsegmentation. A coarser level is brought to the exact grid of the next
    finer one by its nearest cells, so that any size works.

    Args:
        specs: Maps to read, fine to coarse.
        out_channels: Width of every level.
        num_outs: Number of levels to return; those read by default.
        start_level: First map to read.
        extra: How levels beyond the coarsest map are made, each at half the size of the one before: "max_pool" takes
            every other cell (P6 of Mask R-CNN); "on_input" and "on_output" convolve, beginning with the coarsest map
            as it came in (P6 and P7 of RetinaNet) or as it goes out.
        relu_before_extra: Apply ReLU to what the second and further of those convolutions read.

    Raises:
        ConfigError: There are no such levels, or an unknown ``extra``.
    """

    def __init__(
        self,
        specs: Specs,
        out_channels: int = 256,
        num_outs: int | None = None,
        start_level: int = 0,
        extra: str = "max_pool",
        relu_before_extra: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= start_level < len(specs):
            raise ConfigError(f"start_level of FPN must be one of its {len(specs)} maps, 0 to {len(specs) - 1}")
        if extra not in EXTRAS:
            raise ConfigError(f"extra of FPN cannot be {extra!r}.{suggestion(extra, EXTRAS)}")
        read = specs[start_level:]
        self.num_extra = 0 if num_outs is None else num_outs - len(read)
        if self.num_extra < 0:
            raise ConfigError(f"FPN reads {len(read)} maps: num_outs must be at least that, not {num_outs}")
        self.start_level, self.extra, self.relu_before_extra = start_level, extra, relu_before_extra
        self.lateral_convs = nn.ModuleList(_conv(spec.channels, out_channels, 1) for spec in read)
        self.fpn_convs = nn.ModuleList(_conv(out_channels, out_channels, 3) for _ in read)
        if extra != "max_pool":
            for i in range(self.num_extra):
                channels = specs[-1].channels if extra == "on_input" and i == 0 else out_channels
                self.fpn_convs.append(_conv(channels, out_channels, 3, stride=2))
        strides = [spec.stride for spec in read]
        strides += [tuple(s << i for s in strides[-1]) for i in range(1, self.num_extra + 1)]
        self.specs = tuple(FeatureSpec(out_channels, stride) for stride in strides)

    def forward(self, maps: Maps, space: Sequence[int] = ()) -> Maps:
        read = maps[self.start_level :]
        levels = [conv(x) for conv, x in zip(self.lateral_convs, read, strict=True)]
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + F.interpolate(levels[i], levels[i - 1].shape[2:], mode="nearest")
        outs = [self.fpn_convs[i](x) for i, x in enumerate(levels)]
        return tuple(outs + self._extra(maps[-1] if self.extra == "on_input" else outs[-1]))

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename detectron2's layout."""
        found = {key: match for key in state if (match := _DETECTRON2_KEY.match(key))}
        first = min((int(match[2]) for match in found.values()), default=0)
        names = {k: f"{_DETECTRON2[m[1]]}.{int(m[2]) - first}.conv.{k[m.end() :]}" for k, m in found.items()}
        return {names.get(key, key): value for key, value in state.items()}

    def _extra(self, x: Tensor) -> list[Tensor]:
        outs: list[Tensor] = []
        for i in range(self.num_extra):
            if self.extra == "max_pool":
                x = F.max_pool2d(x, kernel_size=1, stride=2)
            else:
                conv = self.fpn_convs[i - self.num_extra]
                x = conv(F.relu(x) if self.relu_before_extra and i > 0 else x)
            outs.append(x)
        return outs


def _conv(in_channels: int, channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, kernel_size, stride, padding=kernel_size // 2)
    nn.init.xavier_uniform_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return nn.Sequential(OrderedDict(conv=conv))
