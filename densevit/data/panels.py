"""Pictures beside each other, each with a caption."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CAPTION = 24  # pixels, above each panel
GAP = 8


def side_by_side(panels: Mapping[str, np.ndarray]) -> Image.Image:
    """Return the captioned panels ``(H, W, 3)``, uint8, in one row."""
    width = sum(panel.shape[1] + GAP for panel in panels.values()) + GAP
    height = max(panel.shape[0] for panel in panels.values()) + CAPTION + GAP
    canvas = Image.new("RGB", (width, height), "white")
    draw, font, left = ImageDraw.Draw(canvas), ImageFont.load_default(14), GAP
    for caption, panel in panels.items():
        draw.text((left, 4), caption, fill="black", font=font)
        canvas.paste(Image.fromarray(panel), (left, CAPTION))
        left += panel.shape[1] + GAP
    return canvas
