"""Pictures of objects: boxes, masks, names."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from densevit.data.font import font
from densevit.data.legend import with_legend
from densevit.data.prediction import Palette
from densevit.tasks.detection.masks import RLE, decode

Box = tuple[float, ...]
Colour = tuple[int, ...]

MAX_NAMED = 40  # objects; beyond, names, and boxes around masks, would hide the image
MAX_TEXT = 1.5  # areas of its box that a name may cover
OPACITY, HATCH, DASH = 0.4, 8, 6


@dataclass(frozen=True)
class Drawn:
    """One object in pixels of the picture; ``score`` is None for true ones."""

    box: Box
    label: int
    score: float | None = None
    mask: RLE | None = None
    crowd: bool = False


def draw_objects(image: np.ndarray, objects: Sequence[Drawn], classes: Sequence[str], palette: Palette) -> np.ndarray:
    """Return the image ``(H, W, 3)``, uint8 RGB, with objects in the colours of their classes, small ones on top.

    Names stay inside of the picture and apart from each other. Where some find no room, as there are many objects or
    tiny ones, a legend to its right counts the objects of each class.
    """
    ordered = sorted(objects, key=_area, reverse=True)
    width = int(np.clip(round(min(image.shape[:2]) / 240), 1, 4))
    pixels = image.copy()
    for each in ordered:
        if each.mask is not None:
            _fill(pixels, each, palette[each.label], width)
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for each in ordered:
        if each.mask is None or len(objects) <= MAX_NAMED:
            _outline(draw, each, tuple(palette[each.label]), 1 if each.mask is not None else width)
    if _write_names(draw, picture.size, ordered, classes, palette):
        return np.asarray(picture)
    counts = Counter(each.label for each in objects).most_common()
    return np.asarray(with_legend(picture, [(f"{classes[i]}  {count}", tuple(palette[i])) for i, count in counts]))


def _area(drawn: Drawn) -> float:
    x1, y1, x2, y2 = drawn.box
    return (x2 - x1) * (y2 - y1)


def _fill(pixels: np.ndarray, drawn: Drawn, colour: Sequence[int], width: int) -> None:
    """Tint the mask, in stripes for a crowd, and draw its outline."""
    assert drawn.mask is not None
    mask = decode(drawn.mask)
    inside = mask.astype(bool)
    if drawn.crowd:
        rows, columns = np.ogrid[: len(mask), : mask.shape[1]]
        inside &= (rows + columns) % HATCH < HATCH // 2
    mixed = (1 - OPACITY) * pixels[inside] + OPACITY * np.asarray(colour, dtype=np.float32)
    pixels[inside] = np.rint(mixed).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(pixels, contours, -1, tuple(colour), max(1, width // 2))


def _outline(draw: ImageDraw.ImageDraw, drawn: Drawn, colour: Colour, width: int) -> None:
    x1, y1, x2, y2 = drawn.box
    left, top = round(x1), round(y1)
    right, bottom = max(left, round(x2) - 1), max(top, round(y2) - 1)
    if not drawn.crowd:
        draw.rectangle((left, top, right, bottom), outline=colour, width=width)
        return
    for x in range(left, right + 1, 2 * DASH):
        for y in (top, bottom):
            draw.line((x, y, min(x + DASH, right), y), fill=colour, width=width)
    for y in range(top, bottom + 1, 2 * DASH):
        for x in (left, right):
            draw.line((x, y, x, min(y + DASH, bottom)), fill=colour, width=width)


def _write_names(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    objects: Sequence[Drawn],
    classes: Sequence[str],
    palette: Palette,
) -> bool:
    """Write the names that have room, those of the best scores first; return whether all had."""
    if len(objects) > MAX_NAMED:
        return False
    letters = font(float(np.clip(min(size) / 32, 10, 20)))
    taken: list[Box] = []
    for each in sorted(objects, key=lambda each: -1 if each.score is None else -each.score):
        text = classes[each.label] + ("" if each.score is None else f" {each.score:.2f}")
        extent = draw.textbbox((0, 0), text, font=letters)
        place = _place(extent, each.box, size, taken)
        if place is None:
            continue
        taken.append(place)
        colour = tuple(palette[each.label])
        draw.rectangle(place, fill=colour)
        ink = "black" if np.dot(colour, (0.299, 0.587, 0.114)) > 140 else "white"
        draw.text((place[0] + 2, place[1] + 1 - _rise(extent)), text, fill=ink, font=letters)
    return len(taken) == len(objects)


def _place(text: Box, box: Box, size: tuple[int, int], taken: Sequence[Box]) -> Box | None:
    """Return where a text fits: above its box, in a corner of it or below; None if nowhere."""
    width, height = int(text[2]) + 4, int(text[3] - _rise(text)) + 3
    x1, y1, x2, y2 = box
    if width * height > MAX_TEXT * (x2 - x1) * (y2 - y1) or width > size[0] or height > size[1]:
        return None
    for x, y in ((x1, y1 - height), (x1, y1), (x2 - width, y1), (x1, y2 - height), (x2 - width, y2 - height), (x1, y2)):
        left = int(np.clip(x, 0, size[0] - 1 - width))
        top = int(np.clip(y, 0, size[1] - 1 - height))
        place = (left, top, left + width, top + height)
        if not any(_overlap(place, other) for other in taken):
            return place
    return None


def _rise(text: Box) -> float:
    """Return how far a text rises above its line, not positive: capitals with two accents do."""
    return min(0, text[1])


def _overlap(a: Box, b: Box) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]
