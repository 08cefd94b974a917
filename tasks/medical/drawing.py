"""Labels on sheets of slices."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from densevit.data.legend import with_legend
from densevit.data.prediction import Palette

OPACITY = 0.4  # of regions; their outlines hide what is below
FONT_SIZE, ROOM = 13, 7  # ROOM: pixels from a number to the outline of its region


def draw_labels(image: np.ndarray, ids: np.ndarray, names: Sequence[tuple[int, str]], palette: Palette) -> np.ndarray:
    """Colour and number regions of a picture, and add a legend to its right.

    Numbers tell apart what colours do not, to all readers.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        ids: ``(H, W)`` uint8, classes; 0 is left as it is.
        names: (class, text) of the rows of the legend.
        palette: A colour for each class.
    """
    padded = np.pad(ids, 1, mode="edge")
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    outline = np.any([ids != other for other in neighbours], axis=0)
    opacity = np.where(outline, 1.0, OPACITY)[..., None] * (ids > 0)[..., None]
    colours = np.zeros((256, 3))
    colours[: len(palette)] = palette
    picture = Image.fromarray(np.rint((1 - opacity) * image + opacity * colours[ids]).astype(np.uint8))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT_SIZE)
    for i, _ in names:
        for place in _places(ids == i):
            draw.text(place, str(i), fill="white", font=font, anchor="mm", stroke_width=2, stroke_fill="black")
    return np.asarray(with_legend(picture, [(f"{i}  {text}", tuple(palette[i])) for i, text in names]))


def _places(region: np.ndarray) -> list[tuple[int, int]]:
    """Return (x, y) in the middle of each connected part of a region that has room for a number."""
    count, parts = cv2.connectedComponents(region.astype(np.uint8))
    depth = cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, 3)
    deepest = [np.unravel_index(np.argmax(np.where(parts == k, depth, 0)), depth.shape) for k in range(1, count)]
    return [(int(x), int(y)) for y, x in deepest if depth[y, x] >= ROOM]
