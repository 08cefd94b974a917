"""Drawn landscapes with masks, to try segmentation and detection where no data are at hand.

Colours are drawn anew for every picture and the classes share them, so that shape, texture and place must tell
classes apart. Objects shrink with distance, hide each other, and are lit from one side.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

CLASSES = ("sky", "ground", "water", "house", "tree", "fence", "car", "ball")
OBJECT_CLASSES = CLASSES[3:]
HEIGHT, WIDTH = 128, 160
FINE = 2  # drawn at this multiple of the size, then averaged

Colour = tuple[int, int, int]
Range = tuple[float, float]


@dataclass
class Canvas:
    """A picture in the making: ``image`` is ``(H, W, 3)`` uint8 RGB; ``ids`` ``(H, W)``, 1 for the first class.

    ``objects`` ``(H, W)`` holds the number of what is drawn: 0 for the land, then 1 and on for object after object.
    """

    image: np.ndarray
    ids: np.ndarray
    objects: np.ndarray
    rng: np.random.Generator
    light: int  # -1: from the left, 1: from the right
    number: int = 0  # of the object that is being drawn

    def polygon(self, name: str, colour: Colour, points: Sequence[tuple[float, float]]) -> None:
        corners = np.rint(points).astype(np.int32)
        cv2.fillPoly(self.image, [corners], colour, cv2.LINE_AA)
        cv2.fillPoly(self.ids, [corners], _id(name))
        cv2.fillPoly(self.objects, [corners], self.number)

    def ellipse(self, name: str, colour: Colour, centre: tuple[float, float], axes: tuple[float, float]) -> None:
        box = [round(v) for v in centre], [max(1, round(v)) for v in axes]
        cv2.ellipse(self.image, *box, 0, 0, 360, colour, -1, cv2.LINE_AA)
        cv2.ellipse(self.ids, *box, 0, 0, 360, _id(name), -1)
        cv2.ellipse(self.objects, *box, 0, 0, 360, self.number, -1)

    def colour(self, hues: Range = (0, 1), saturation: Range = (0.1, 0.9), value: Range = (0.3, 0.95)) -> Colour:
        hue = self.rng.uniform(*hues) % 1
        rgb = colorsys.hsv_to_rgb(hue, self.rng.uniform(*saturation), self.rng.uniform(*value))
        return scaled((255 * rgb[0], 255 * rgb[1], 255 * rgb[2]), 1)


@dataclass(frozen=True)
class Place:
    """Where an object stands: its foot ``(x, y)``, and the height in pixels of what is 1 tall there."""

    x: float
    y: float
    size: float

    def __call__(self, across: float, up: float) -> tuple[float, float]:
        return self.x + across * self.size, self.y - up * self.size

    def box(self, left: float, bottom: float, right: float, top: float) -> list[tuple[float, float]]:
        return [self(left, bottom), self(right, bottom), self(right, top), self(left, top)]


class Scene(NamedTuple):
    """A landscape and what is seen where in it.

    Attributes:
        image: ``(128, 160, 3)`` uint8 RGB.
        ids: ``(128, 160)`` uint8, 1 for the first of `CLASSES`; 0 marks the pixels between two classes, which are
            unlabelled.
        objects: ``(128, 160)`` uint8, 1 and on for the objects from far to near, each of one of `OBJECT_CLASSES`;
            0 for the land. Of an object that others hide there are fewer pixels, or none.
    """

    image: np.ndarray
    ids: np.ndarray
    objects: np.ndarray


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw a landscape; it depends on the state of ``rng`` only."""
    height, width = FINE * HEIGHT, FINE * WIDTH
    canvas = blank(rng, height, width)
    ids = canvas.ids
    horizon = height * rng.uniform(0.3, 0.55)
    draw_sky(canvas, horizon)
    draw_ground(canvas, horizon)
    if rng.random() < 0.7:
        draw_water(canvas, horizon)
    for foot in np.sort(rng.uniform(horizon + 0.05 * height, 0.98 * height, rng.integers(3, 7))):
        x, near = rng.uniform(0, width), (foot - horizon) / (height - horizon)
        if ids[int(foot), int(x)] != _id("water"):
            draw = OBJECTS[rng.integers(len(OBJECTS))]
            canvas.number += 1
            draw(canvas, Place(x, foot, height * (0.85 + 0.45 * near) * rng.uniform(0.9, 1.3)))
    return photograph(canvas)


def blank(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """Return an empty canvas of this many pixels, and decide from where the light comes."""
    image, ids = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    return Canvas(image, ids, np.zeros_like(ids), rng, light=int(rng.choice([-1, 1])))


def draw_sky(canvas: Canvas, horizon: float) -> None:
    """Fill the picture with a gradient, clouds and perhaps a sun, which belongs to the sky."""
    rng, height, width = canvas.rng, len(canvas.ids), canvas.ids.shape[1]
    hues = [(0.52, 0.66), (0.52, 0.66), (0.9, 1.13), (0, 1)][rng.integers(4)]
    top, low = canvas.colour(hues, (0.1, 0.7), (0.35, 0.95)), canvas.colour(hues, (0.02, 0.4), (0.7, 1))
    blend = np.linspace(0, height / horizon, height).clip(0, 1)[:, None, None]
    canvas.image[:] = (1 - blend) * np.array(top) + blend * np.array(low)
    canvas.ids[:] = _id("sky")
    if rng.random() < 0.5:
        place = width / 2 * (1 + canvas.light * rng.uniform(0.2, 0.9)), horizon * rng.uniform(0.15, 0.6)
        canvas.ellipse("sky", canvas.colour((0.08, 0.16), (0.1, 0.6), (0.9, 1)), place, (height * 0.06,) * 2)
    clouds = smooth_noise(rng, canvas.ids.shape, (4, 8)) * smooth_noise(rng, canvas.ids.shape, (9, 22))
    cover = np.clip(clouds * 2.5 - rng.uniform(0.3, 1), 0, 0.8)[..., None]
    canvas.image[:] = (1 - cover) * canvas.image + cover * rng.uniform(150, 255)


def draw_ground(canvas: Canvas, horizon: float) -> None:
    """Fill below the horizon, with hills above it at times."""
    rng, height, width = canvas.rng, len(canvas.ids), canvas.ids.shape[1]
    hues = [(0.18, 0.4), (0.18, 0.4), (0.05, 0.15), (0.5, 0.7)][rng.integers(4)]
    colour = canvas.colour(hues, (0.05, 0.65), (0.3, 0.9))
    for _ in range(rng.integers(0, 3)):
        x, tall, wide = rng.uniform(0, width), horizon * rng.uniform(0.1, 0.5), width * rng.uniform(0.2, 0.6)
        outline = [(x + wide * t, horizon + 1 - tall * np.cos(t * np.pi / 2) ** 2) for t in np.linspace(-1, 1, 15)]
        canvas.polygon("ground", scaled(colour, rng.uniform(0.6, 0.95)), outline)
    canvas.polygon("ground", colour, [(0, horizon), (width, horizon), (width, height), (0, height)])


def draw_water(canvas: Canvas, horizon: float) -> None:
    """Put a lake before the ground: along the horizon, or in the meadow."""
    rng, height, width = canvas.rng, len(canvas.ids), canvas.ids.shape[1]
    near = tuple(int(v) for v in canvas.image[2, 2])
    mirrored = rng.random() < 0.5
    colour = scaled(near, 0.8) if mirrored else canvas.colour((0.4, 0.68), (0.1, 0.8), (0.3, 0.9))
    if rng.random() < 0.6:
        shore = horizon + (height - horizon) * rng.uniform(0.2, 0.6)
        waves = smooth_noise(rng, (1, width), (6, 1))[0] * 0.12 * height
        outline = [(x, shore + waves[x]) for x in range(0, width, 4)]
        canvas.polygon("water", colour, [(0, horizon), *outline, (width, shore), (width, horizon)])
    else:
        y = horizon + (height - horizon) * rng.uniform(0.4, 0.8)
        centre, axes = (rng.uniform(0.1, 0.9) * width, y), (width * rng.uniform(0.2, 0.5), (y - horizon) * 0.4)
        canvas.ellipse("water", colour, centre, axes)


def draw_house(canvas: Canvas, at: Place) -> None:
    """Draw walls, a pointed or flattened roof, windows, a door, and perhaps a chimney."""
    rng = canvas.rng
    half, wall, ridge = rng.uniform(0.16, 0.32), rng.uniform(0.2, 0.36), rng.uniform(0.1, 0.22)
    colour, roof = canvas.colour(saturation=(0.05, 0.45), value=(0.55, 0.95)), canvas.colour((0.9, 1.15))
    cast_shadow(canvas, at, half)
    if rng.random() < 0.4:
        canvas.polygon("house", scaled(roof, 0.7), at.box(half * 0.4, wall, half * 0.6, wall + ridge * 1.1))
    canvas.polygon("house", colour, at.box(-half, 0, half, wall))
    flat = rng.uniform(0, 0.6)
    canvas.polygon(
        "house",
        roof,
        [at(-half * 1.15, wall), at(half * 1.15, wall), at(half * flat, wall + ridge), at(-half * flat, wall + ridge)],
    )
    glass = canvas.colour(value=(0.1, 0.9))
    columns = np.linspace(-0.75, 0.75, int(rng.integers(2, 5)))
    door = rng.integers(len(columns))
    for i, column in enumerate(columns):
        left, right = half * (column - 0.14), half * (column + 0.14)
        low, high = (0, 0.6) if i == door else (0.4, 0.75)
        canvas.polygon("house", scaled(glass, 0.5 if i == door else 1), at.box(left, low * wall, right, high * wall))


def draw_tree(canvas: Canvas, at: Place) -> None:
    """Draw a trunk with a round crown or a conifer of three tiers."""
    rng = canvas.rng
    trunk, tall, wide = rng.uniform(0.1, 0.25), rng.uniform(0.3, 0.5), rng.uniform(0.1, 0.22)
    hues = [(0.2, 0.42), (0.2, 0.42), (0.95, 1.15)][rng.integers(3)]
    leaves = canvas.colour(hues, (0.25, 0.9), (0.2, 0.75))
    cast_shadow(canvas, at, wide)
    canvas.polygon("tree", canvas.colour((0.02, 0.1), (0.2, 0.6), (0.15, 0.5)), at.box(-0.025, 0, 0.025, trunk + 0.1))
    if rng.random() < 0.4:  # a conifer
        for step in range(3):
            low, reach = trunk + tall * 0.27 * step, wide * (1 - 0.25 * step)
            tip = at(0, low + tall * 0.45)
            canvas.polygon("tree", scaled(leaves, 0.8 + 0.15 * step), [at(-reach, low), at(reach, low), tip])
        return
    for _ in range(14):
        turn, out = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 1)) * 0.7
        across, up = wide * out * np.cos(turn), trunk + tall * (0.5 + 0.5 * out * np.sin(turn))
        lit = 1 + 0.35 * (across * canvas.light / wide + (up - trunk) / tall - 0.5)
        radius = at.size * wide * rng.uniform(0.35, 0.55)
        canvas.ellipse("tree", scaled(leaves, lit), at(across, up), (radius, radius))


def draw_fence(canvas: Canvas, at: Place) -> None:
    """Draw pickets; the narrow gaps between them belong to the fence."""
    rng = canvas.rng
    half, tall, step = rng.uniform(0.3, 0.7), rng.uniform(0.12, 0.2), rng.uniform(0.05, 0.07)
    colour = canvas.colour((0, 0.15), (0, 0.7))
    canvas.polygon("fence", scaled(colour, 0.45), at.box(-half, 0.02, half, tall * 0.9))
    for rail in (0.25, 0.65):
        canvas.polygon("fence", scaled(colour, 0.8), at.box(-half, tall * rail, half, tall * (rail + 0.13)))
    for left in np.arange(-half, half, step):
        right = left + step * 0.62
        tip = at((left + right) / 2, tall * 1.15)
        canvas.polygon("fence", colour, [at(left, 0), at(right, 0), at(right, tall), tip, at(left, tall)])


def draw_car(canvas: Canvas, at: Place) -> None:
    """Draw a car from its side, facing either way."""
    rng = canvas.rng
    half, facing = rng.uniform(0.19, 0.25), rng.choice([-1, 1])
    colour, glass = canvas.colour(saturation=(0.4, 0.95)), canvas.colour((0.5, 0.65), (0, 0.4), (0.15, 0.8))
    cast_shadow(canvas, at, half)

    def shape(shade: Colour, *points: tuple[float, float]) -> None:
        canvas.polygon("car", shade, [at(facing * half * x, y) for x, y in points])

    shape(colour, (-1, 0.035), (1, 0.035), (0.98, 0.09), (0.6, 0.115), (-0.95, 0.125))
    shape(scaled(colour, 0.9), (-0.75, 0.12), (0.5, 0.115), (0.2, 0.2), (-0.5, 0.2))
    shape(glass, (-0.62, 0.125), (-0.2, 0.125), (-0.2, 0.185), (-0.46, 0.185))
    shape(glass, (-0.12, 0.125), (0.36, 0.125), (0.16, 0.185), (-0.12, 0.185))
    for x in (-0.58, 0.58):
        for radius, shade in ((0.045, 25), (0.02, 150)):
            canvas.ellipse("car", (shade,) * 3, at(facing * half * x, 0.045), (at.size * radius,) * 2)


def draw_ball(canvas: Canvas, at: Place) -> None:
    """Draw a shaded ball with a stripe."""
    rng = canvas.rng
    radius = rng.uniform(0.08, 0.14)
    base, stripe = canvas.colour(saturation=(0.5, 0.95)), canvas.colour(saturation=(0, 0.4), value=(0.6, 1))
    cast_shadow(canvas, at, radius)
    turn = rng.uniform(0, np.pi)
    for shrink in np.linspace(1, 0.15, 8):  # ever smaller and brighter, towards the light
        middle = at(canvas.light * radius * 0.4 * (1 - shrink), radius * (1 + 0.4 * (1 - shrink)))
        canvas.ellipse("ball", scaled(base, 1.25 - 0.75 * shrink), middle, (radius * shrink * at.size,) * 2)
    along, across = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    corners = [(along * a + across * b) * radius for a, b in [(-0.9, -0.2), (0.9, -0.2), (0.9, 0.2), (-0.9, 0.2)]]
    canvas.polygon("ball", stripe, [at(x, radius + y) for x, y in corners])


OBJECTS = (draw_house, draw_house, draw_tree, draw_tree, draw_fence, draw_car, draw_car, draw_ball, draw_ball)


def cast_shadow(canvas: Canvas, at: Place, half: float) -> None:
    """Darken what lies on the side of an object away from the light; classes stay."""
    shade = np.zeros(canvas.ids.shape, np.uint8)
    centre, axes = at(-canvas.light * half * 0.5, 0), (at.size * half * 1.2, at.size * half * 0.2)
    cv2.ellipse(shade, [round(v) for v in centre], [max(1, round(v)) for v in axes], 0, 0, 360, 1, -1)
    canvas.image[shade > 0] = (canvas.image[shade > 0] * 0.6).astype(np.uint8)


def photograph(canvas: Canvas) -> Scene:
    """Add the texture of surfaces, light, colour cast and noise; reduce; unlabel the edges."""
    rng, shape = canvas.rng, canvas.ids.shape
    size = shape[1] // FINE, shape[0] // FINE
    pixels: np.ndarray = canvas.image.astype(np.float32)
    textures = {"ground": (90, 70), "water": (5, 60), "tree": (60, 50)}  # cells across and down
    for name, cells in textures.items():
        strength = smooth_noise(rng, shape, cells) - 0.5
        pixels = pixels + np.where(canvas.ids == _id(name), strength * rng.uniform(40, 90), 0)[..., None]
    gradient = np.linspace(1 - 0.2 * canvas.light, 1 + 0.2 * canvas.light, shape[1])[:, None] * rng.uniform(0.7, 1.1)
    pixels = cv2.resize(pixels * gradient * rng.uniform(0.88, 1.12, 3), size, interpolation=cv2.INTER_AREA)
    pixels = pixels + rng.normal(0, rng.uniform(1, 7), pixels.shape)
    ids, objects = (
        cv2.resize(numbers, size, interpolation=cv2.INTER_NEAREST_EXACT) for numbers in (canvas.ids, canvas.objects)
    )
    edge = np.zeros(ids.shape, bool)
    edge[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    edge[:-1] |= ids[:-1] != ids[1:]
    return Scene(np.clip(pixels, 0, 255).astype(np.uint8), np.where(edge, 0, ids).astype(np.uint8), objects)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], cells: tuple[int, int]) -> np.ndarray:
    """Return noise in 0..1 of the given shape, smooth over ``cells`` across and down."""
    grid = rng.random(cells[::-1], dtype=np.float32)
    return cv2.resize(grid, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


def scaled(colour: Sequence[float], factor: float) -> Colour:
    """Return a brighter or darker colour."""
    red, green, blue = (min(255, round(v * factor)) for v in colour)
    return red, green, blue


def _id(name: str) -> int:
    return CLASSES.index(name) + 1
