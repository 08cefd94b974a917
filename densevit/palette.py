"""Colours of classes in pictures, and of lines in plots."""

import colorsys

# Told apart with any colour vision: Okabe and Ito, https://jfly.uni-koeln.de/color/, without their yellow.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def distinct_colours(count: int) -> list[tuple[int, int, int]]:
    """Return (red, green, blue) whose neighbours differ well: hues by the golden section, in three shades."""
    shades = [(0.65, 0.95), (0.9, 0.7), (0.4, 0.85)]  # saturation, value
    colours = [colorsys.hsv_to_rgb(i * 0.618034 % 1, *shades[i % 3]) for i in range(count)]
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in colours]
