"""Regions of classes, coloured and numbered on pictures."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from densevit.data.font import font

OPACITY = 0.4  # at which outlines hide what is below
FONT_SIZE = 13
ROOM = 0.54  # from the middle of a number to the outline of its region, in sizes of the font; long ones need more


def paint_regions(
    image: np.ndarray,
    ids: np.ndarray,
    shown: Iterable[int],
    palette: Sequence[Sequence[int]],
    opacity: float = OPACITY,
    font_size: int = FONT_SIZE,
) -> np.ndarray:
    """Return a picture with regions coloured, outlined, and numbered where there is room.

    Numbers tell apart what colours do not, to all readers.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        ids: ``(H, W)`` integers, classes.
        shown: Classes that are coloured; others are left as they are.
        palette: A colour for each class; of those beyond, black.
        opacity: Of the regions; outlines have more.
        font_size: Of the numbers, in pixels.
    """
    shown = sorted(set(shown))
    inside = np.isin(ids, shown)
    padded = np.pad(ids, 1, mode="edge")
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    outline = np.any([ids != other for other in neighbours], axis=0)
    share = (np.where(outline, min(1.0, opacity / OPACITY), opacity) * inside)[..., None]
    colours = np.zeros((max(len(palette), int(ids.max(initial=0)) + 1), 3))
    colours[: len(palette)] = palette
    mixed = (1 - share) * image + share * colours[np.where(inside, ids, 0)]
    picture = Image.fromarray(np.rint(mixed).astype(np.uint8))
    draw, digits = ImageDraw.Draw(picture), font(font_size)
    for i in shown if opacity else ():
        room = max(ROOM * font_size, digits.getlength(str(i)) / 2)
        for place in _places(ids == i, room):
            draw.text(place, str(i), fill="white", font=digits, anchor="mm", stroke_width=2, stroke_fill="black")
    return np.asarray(picture)


def _places(region: np.ndarray, room: float) -> list[tuple[int, int]]:
    """Return (x, y) in the middle of each connected part of a region in which a circle of radius ``room`` fits."""
    padded = np.pad(region, 1).astype(np.uint8)  # what is outside of the picture is no room
    count, parts, stats, _ = cv2.connectedComponentsWithStats(padded, connectivity=8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 3)
    found = []
    for k in range(1, count):
        left, top, width, height = (int(n) for n in stats[k, :4])
        if min(width, height) < room:  # of many parts few have room, and only those are looked at
            continue
        box = np.s_[top : top + height, left : left + width]
        inside = np.where(parts[box] == k, depth[box], 0)
        y, x = np.unravel_index(np.argmax(inside), inside.shape)
        if inside[y, x] >= room:
            found.append((left + int(x) - 1, top + int(y) - 1))
    return found
