"""Legends of pictures: names and colours of classes."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from densevit.data.font import font

FONT_SIZE, ROW, MARGIN, MIN_ROWS, MAX_ROWS = 14, 20, 6, 12, 30


def with_legend(picture: Image.Image, rows: Sequence[tuple[str, tuple[int, ...]]]) -> Image.Image:
    """Add a row for each (text, colour) to the right of a picture; if they are too many, the last counts the others."""
    limit = min(MAX_ROWS, max(MIN_ROWS, picture.height // ROW))
    if len(rows) > limit:
        rows = [*rows[: limit - 1], (f"and {len(rows) - limit + 1} more", (255, 255, 255))]
    letters = font(FONT_SIZE)
    width = max((letters.getlength(text) for text, _ in rows), default=0) + ROW + 2 * MARGIN
    height = max(picture.height, len(rows) * ROW + 2 * MARGIN)
    canvas = Image.new("RGB", (picture.width + int(width) + MARGIN, height), "white")
    canvas.paste(picture)
    draw, left = ImageDraw.Draw(canvas), picture.width + MARGIN
    for i, (text, colour) in enumerate(rows):
        top = MARGIN + i * ROW
        draw.rectangle((left, top + 2, left + ROW - 6, top + ROW - 4), fill=colour)
        draw.text((left + ROW, top), text, fill="black", font=letters)
    return canvas
