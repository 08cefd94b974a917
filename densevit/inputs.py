"""What predictions are made for: files, folders, globs, and what is in memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from densevit.data.readers import IMAGE_SUFFIXES, pixels_of
from densevit.engine.writer import output_names
from densevit.errors import DataError

Accept = Callable[[Any, str], Any]  # from what is in memory, and its name, to what a reader takes


@dataclass(frozen=True)
class Source:
    """One input: a file, or what is in memory, as a reader takes it.

    Attributes:
        value: The path, or the array or image.
        name: What files of results go by: the path of a file below the folder of all inputs, without suffix, or
            "input_0" of the first input, if that is in memory.
    """

    value: Any = field(repr=False)
    name: str

    def __str__(self) -> str:
        """Return the path, or the name of what is in memory."""
        return str(self.value) if isinstance(self.value, Path) else self.name


def is_single(inputs: Any) -> bool:
    """Say whether this is one input: a file or something in memory, not a list, folder or glob."""
    return Path(inputs).is_file() if isinstance(inputs, str | Path) else not isinstance(inputs, list | tuple)


def find_sources(inputs: Any, suffixes: tuple[str, ...], accept: Accept) -> list[Source]:
    """Return the inputs that one, or a list of them, names, in order.

    Raises:
        DataError: A path or pattern names nothing, or something in memory is no input.
    """
    items = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    found: list[Any] = []
    names: dict[int, str] = {}
    for index, item in enumerate(items):
        if isinstance(item, str | Path):
            found += find_files([item], suffixes)
        else:
            names[len(found)] = f"input_{index}"
            found.append(accept(item, f"input_{index}"))
    paths = [str(value) for value in found if isinstance(value, Path)]
    files = iter(output_names(paths) if paths else ())
    return [Source(value, names.get(index) or next(files)) for index, value in enumerate(found)]


def find_files(inputs: Sequence[str | Path], suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[Path]:
    """Return the files that paths, folders and glob patterns name, in order, each once; by default images.

    Raises:
        DataError: One of them names nothing.
    """
    found: list[Path] = []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            matches = sorted(p for p in path.rglob("*") if p.name.lower().endswith(suffixes))
        elif path.is_file():
            matches = [path]
        else:
            pattern = str(path.relative_to(path.anchor))
            matches = sorted(p for p in Path(path.anchor or ".").glob(pattern) if p.is_file())
        if not matches:
            raise DataError(f"{text} is no file, no folder with any of {', '.join(suffixes)}, no glob")
        found += matches
    return list(dict.fromkeys(found))


def rgb_array(value: Any, name: str, axes: str) -> np.ndarray:
    """Return an array or tensor of pixels as NumPy's, contiguous.

    Args:
        value: ``(*axes, 3)`` uint8 RGB.
        name: Of the input, for messages.
        axes: Names of the axes before the channels, such as "H, W".

    Raises:
        DataError: It is anything else.
    """
    kind = "a clip" if axes.startswith("T") else "an image"
    wanted = f"{kind} is a file or ({axes}, 3) uint8 RGB"
    if not isinstance(value, np.ndarray | Tensor):
        raise DataError(f"{name}: {wanted}, not {type(value).__name__}")
    array = value.numpy(force=True) if isinstance(value, Tensor) else value
    if array.ndim != 1 + len(axes.split(", ")) or array.shape[-1] != 3 or array.dtype != np.uint8 or not array.size:
        hint = ""
        if array.ndim >= 3 and array.shape[-3] == 3 != array.shape[-1]:
            hint = "; put the channels last, by numpy.moveaxis(x, -3, -1)"
        elif array.dtype != np.uint8:
            hint = "; scale it to 0..255 and convert it, by x.astype(numpy.uint8)"
        elif array.ndim == len(axes.split(", ")):
            hint = "; grey levels are put into all channels by numpy.stack([x] * 3, -1)"
        elif array.ndim == 2 + len(axes.split(", ")):
            hint = "; several inputs are a list: list(x)"
        raise DataError(f"{name}: {wanted}, not {array.shape} {array.dtype}{hint}")
    return np.require(array, requirements=["C", "W"])


def image_array(value: Any, name: str) -> np.ndarray:
    """Return an image in memory, of NumPy, torch or Pillow, as ``(H, W, 3)`` uint8 RGB.

    Raises:
        DataError: It is none.
    """
    return pixels_of(value, name) if isinstance(value, Image.Image) else rgb_array(value, name, "H, W")
