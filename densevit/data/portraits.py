"""Drawn pictures of single objects, to try classification where no data are at hand.

Objects are those of `densevit.data.scenes`, whose colours all classes share, before a landscape of their own.
"""

import numpy as np

from densevit.data import scenes
from densevit.data.scenes import FINE, OBJECT_CLASSES, Place

SIDE = 64
DRAW = (scenes.draw_house, scenes.draw_tree, scenes.draw_fence, scenes.draw_car, scenes.draw_ball)
EXTENT = (0.55, 0.6, 0.9, 0.5, 0.28)  # of an object of size 1: how much of the picture it takes is the same for all
CLASSES = OBJECT_CLASSES


def draw_portrait(rng: np.random.Generator, label: int) -> np.ndarray:
    """Draw one object of class ``label`` of `CLASSES`: ``(64, 64, 3)`` uint8 RGB. It depends on ``rng`` only."""
    side = FINE * SIDE
    canvas = scenes.blank(rng, side, side)
    horizon = side * rng.uniform(0.25, 0.6)
    scenes.draw_sky(canvas, horizon)
    scenes.draw_ground(canvas, horizon)
    if rng.random() < 0.3:
        scenes.draw_water(canvas, horizon)
    size = side * rng.uniform(0.4, 0.85) / EXTENT[label]
    DRAW[label](canvas, Place(side * rng.uniform(0.35, 0.65), side * rng.uniform(0.7, 0.95), size))
    return scenes.photograph(canvas).image
