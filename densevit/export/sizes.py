"""Which sizes an exported model takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from torch.export import Dim

from densevit.errors import ConfigError
from densevit.model import DenseModel


@dataclass(frozen=True, slots=True)
class InputSize:
    """Sizes of inputs ``(N, C, *space)``.

    Attributes:
        space: That the graph is made at.
        multiples: What sizes of each axis are multiples of; 0 where there is one size only.
        least: The smallest size of each axis.
        batch: Whether the number of inputs may vary; else it is 1.
    """

    space: tuple[int, ...]
    multiples: tuple[int, ...]
    least: tuple[int, ...]
    batch: bool

    def shape(self, channels: int) -> list[int | str]:
        """Return the shape of the input, with names where it varies."""
        names = ("height", "width")[-len(self.space) :]
        axes = zip(self.space, self.multiples, [""] * (len(self.space) - 2) + [*names], strict=True)
        return ["batch" if self.batch else 1, channels, *(name if m else n for n, m, name in axes)]

    def dims(self) -> dict[int, Any]:
        """Return the axes that vary, for `torch.export`."""
        varying: dict[int, Any] = {0: Dim("batch", min=1)} if self.batch else {}
        for axis, (multiple, least) in enumerate(zip(self.multiples, self.least, strict=True)):
            if multiple:
                varying[2 + axis] = multiple * Dim("hw"[axis], min=least // multiple)
        return varying

    def tried(self) -> list[tuple[int, tuple[int, ...]]]:
        """Return numbers and sizes of inputs that tell whether the graph is right for all."""
        if not self.batch:
            return [(1, self.space)]
        larger = tuple(n + m for n, m in zip(self.space, self.multiples, strict=True))
        return [(2, self.space), (3, larger), *([(1, self.least)] if any(self.multiples) else [])]


def input_size(model: DenseModel, space: Sequence[int], static: bool) -> InputSize:
    """Return what can vary: the batch, and height and width of images by multiples of the divisor.

    They vary from where the coarsest map has two cells: a single one is another case, of another graph. Clips and
    volumes have the size of the clip, or of the window, that the model was trained on.

    Raises:
        ConfigError: ``space`` has other axes than the inputs, is too small, or no multiple of the divisor.
    """
    divisor = model.backbone.divisor
    given = " ".join(map(str, space))
    if len(space) != len(divisor) or min(space) < 1:
        names = "HEIGHT WIDTH" if len(divisor) == 2 else "FRAMES HEIGHT WIDTH or DEPTH HEIGHT WIDTH"
        raise ConfigError(f"--size is {names}, positive numbers of pixels, not {given}")
    if static or len(divisor) == 3:
        return InputSize(tuple(space), (0,) * len(space), tuple(space), not static)
    least = smallest(model)
    for n, m, first in zip(space, divisor, least, strict=True):
        if n % m or n < first:
            raise ConfigError(
                f"--size {given}: where the size may vary it must be multiples of {m}, {first} or more. "
                "For a single size add --static"
            )
    return InputSize(tuple(space), tuple(divisor), least, True)


def smallest(model: DenseModel) -> tuple[int, ...]:
    """Return the sizes at which the coarsest map has two cells."""
    specs = model.backbone.specs if model.neck is None else model.neck.specs
    strides = zip(*(spec.stride for spec in specs), strict=True) if specs else ((),) * len(model.backbone.divisor)
    return tuple(max([d, *of_axis]) + d for d, of_axis in zip(model.backbone.divisor, strides, strict=True))


def usual_space(cfg: Config, model: DenseModel) -> tuple[int, ...]:
    """Return the size of what the model sees in a test: of a window, of a clip, of a crop, or of official images."""
    dataset, backbone = cfg.test_dataloader.dataset, model.backbone
    if window := (cfg.model.get("inference") or {}).get("window"):
        return tuple(window)
    crops = [t["size"] for t in dataset.get("transforms") or () if isinstance(t, Mapping) and t["type"] == "CenterCrop"]
    size = crops[-1] if crops else backbone.img_size
    plane = (size, size) if isinstance(size, int) else tuple(size)
    if len(backbone.divisor) == 2:
        return tuple(max(-(-n // d) * d, m) for n, d, m in zip(plane, backbone.divisor, smallest(model), strict=True))
    return (_frames(dataset) or backbone.num_frames or backbone.img_size, *plane)


def _frames(dataset: Mapping[str, Any]) -> int:
    """Return the frames of a clip as the network sees it; 0 if the config has none."""
    differences = sum(t["type"] == "FrameDifference" for t in dataset.get("transforms") or () if isinstance(t, Mapping))
    return max(0, (dataset.get("sampling") or {}).get("frames", 0) - differences)
