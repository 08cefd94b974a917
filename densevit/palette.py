"""Colours of classes in pictures."""

import colorsys


def distinct_colours(count: int) -> list[tuple[int, int, int]]:
    """Return (red, green, blue) whose neighbours differ well: hues by the golden section, in three shades."""
    shades = [(0.65, 0.95), (0.9, 0.7), (0.4, 0.85)]  # saturation, value
    colours = [colorsys.hsv_to_rgb(i * 0.618034 % 1, *shades[i % 3]) for i in range(count)]
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in colours]
