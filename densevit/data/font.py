"""The font of texts on pictures."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

SHARE = 0.9  # of the size asked for: so DejaVu is as wide as Pillow's own font, and almost as high


@lru_cache(maxsize=64)
def font(size: float) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which has the letters of Latin, Greek and Cyrillic scripts; Pillow's own font has ASCII.

    Letters that it lacks, Chinese and Japanese ones among them, are drawn as boxes.

    Args:
        size: In pixels, about the height of a line; the font is opened in the nearest whole size that looks like it.
    """
    import matplotlib  # takes half a second; commands that draw nothing need not wait for it

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), max(1, round(SHARE * size)))


@contextmanager
def boxes_for_missing_letters() -> Iterator[None]:
    """Let Matplotlib draw boxes for letters that its font lacks, without a warning for each of them.

    The boxes are seen in the picture, and no user can do anything about the font.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from", UserWarning)
        yield
