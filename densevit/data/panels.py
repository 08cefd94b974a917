"""Pictures beside each other, each with a caption."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from densevit.data.font import font

CAPTION, FONT_SIZE = 24, 14  # pixels, above each panel
GAP = 8


def side_by_side(panels: Mapping[str, np.ndarray]) -> Image.Image:
    """Return the captioned panels ``(H, W, 3)``, uint8, in one row; none is narrower than its caption."""
    letters = font(FONT_SIZE)
    widths = [max(panel.shape[1], int(letters.getlength(caption)) + 1) for caption, panel in panels.items()]
    width = sum(widths) + GAP * (len(widths) + 1)
    height = max(panel.shape[0] for panel in panels.values()) + CAPTION + GAP
    canvas = Image.new("RGB", (width, height), "white")
    draw, left = ImageDraw.Draw(canvas), GAP
    for (caption, panel), room in zip(panels.items(), widths, strict=True):
        draw.text((left, 4), caption, fill="black", font=letters)
        canvas.paste(Image.fromarray(panel), (left, CAPTION))
        left += room + GAP
    return canvas
