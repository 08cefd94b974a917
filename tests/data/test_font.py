"""Letters beyond ASCII are seen on pictures, in texts that keep their place and size."""

import subprocess
import sys
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from densevit.data.class_prediction import ClassPrediction
from densevit.data.contact_sheet import heat_sheet
from densevit.data.font import boxes_for_missing_letters, font
from densevit.data.legend import with_legend
from densevit.data.panels import side_by_side
from densevit.data.plane_sheet import plane_sheet
from densevit.data.regions import paint_regions
from densevit.engine.confusion import draw_confusion
from densevit.structures import ClassTarget
from densevit.tasks.detection.drawing import Drawn, draw_objects
from densevit.tasks.detection.metric_pictures import draw_curves
from densevit.tasks.video.annotated import Layout
from densevit.tasks.video.timeline import Timeline
from densevit.web.views.volume import _with_sides

LETTERS = "äéüñßøЖλ"
MISSING = ("\uffff", "打")
NAME, OTHER = "Straße", "Straüe"  # they differ where the font of ASCII letters had a box in both
PALETTE = [(200, 0, 0), (0, 0, 200)]
IMAGE = np.full((160, 200, 3), 128, np.uint8)
CLIP = torch.zeros(4, 3, 30, 40, dtype=torch.uint8)
SURE = ClassPrediction(torch.tensor([0.9, 0.1]))


def pixels(text: str, size: float = 14) -> bytes:
    mask = font(size).getmask(text)
    return repr(mask.size).encode() + bytes(mask)


@pytest.mark.parametrize("letter", LETTERS)
def test_letters_of_europe_are_no_boxes(letter: str) -> None:
    for missing in MISSING:
        assert pixels(letter) != pixels(missing)
    assert pixels(MISSING[0]) == pixels(MISSING[1]), "of missing letters all look the same"


@pytest.mark.parametrize("size", [10, 12, 13, 14, 18, 20, 28])
def test_lines_are_as_high_as_their_size_says(size: int) -> None:
    ascent, descent = font(size).getmetrics()
    assert size - 2 <= ascent + descent <= 1.25 * size
    assert font(size) is font(size)


def objects(name: str) -> np.ndarray:
    return draw_objects(IMAGE, [Drawn((20, 40, 150, 140), 0, 0.9)], [name, "b"], PALETTE)


def truth(name: str) -> np.ndarray:
    return ClassPrediction.draw_truth(IMAGE, ClassTarget(torch.tensor(0)), [name, "b"], PALETTE)


NAMED: dict[str, tuple[Callable[[str], np.ndarray], tuple[int, int]]] = {
    "prediction": (lambda name: SURE.draw(IMAGE, [name, "b"], PALETTE), (160, 200 + 192)),
    "truth": (truth, (160, 200 + 72)),
    "video": (lambda name: Layout((360, 480), [SURE], [1.0], [name, "b"], PALETTE).draw(
        np.zeros((360, 480, 3), np.uint8), 0.0), (360, 480 + 192)),
    "legend": (lambda name: np.asarray(with_legend(Image.fromarray(IMAGE), [(name, (9, 9, 9))])), (160, 0)),
    "objects": (objects, (160, 200)),
    "captions": (lambda name: heat_sheet(CLIP, CLIP, torch.ones(4, 1, 1), name), (240 + 22, 640)),
    "panels": (lambda name: np.asarray(side_by_side({name: IMAGE})), (160 + 32, 200 + 16)),
}  # fmt: skip


@pytest.mark.parametrize("kind", NAMED)
def test_names_beyond_ascii_are_told_apart_on_pictures_of_the_same_size(kind: str) -> None:
    draw, (height, width) = NAMED[kind]
    picture, other = draw(NAME), draw(OTHER)
    width = width or 200 + int(font(14).getlength(NAME) + 20 + 2 * 6) + 6
    assert picture.shape == (height, width, 3)
    assert picture.shape != other.shape or (picture != other).any()


def test_pictures_with_digits_and_letters_keep_their_size() -> None:
    assert plane_sheet(torch.rand(1, 8, 8, 8), (1, 1, 1)).shape == (3 * (18 + 180 + 4), 4 * 184 + 4, 3)
    ids = np.zeros((160, 200), np.uint8)
    numbered = paint_regions(IMAGE, ids, [0], [(128, 128, 128)])
    assert numbered.shape == IMAGE.shape
    assert (numbered != 128).any()
    sides = _with_sides(IMAGE, ("L", "R"), ("P", "A"))
    assert sides.shape == IMAGE.shape
    for half in (sides[:, :20], sides[:, -20:], sides[:20], sides[-20:]):
        assert (half == 255).any()


def test_captions_wider_than_their_panels_are_whole() -> None:
    narrow = np.zeros((10, 10, 3), np.uint8)
    ink = np.asarray(side_by_side({"input": narrow, "prediction": narrow}).convert("L"))[:24] < 128
    gap = 8 + int(font(14).getlength("input")) + 1
    assert not ink[:, gap : gap + 8].any(), "they do not overlap"
    assert not ink[:, -8:].any(), "they are not cut off"


def test_long_numbers_need_room_for_all_of_their_digits() -> None:
    strip = np.full((60, 19), 12345, np.int64)
    assert (paint_regions(IMAGE[:60, :19], strip, [12345], [(0, 0, 0)]) < 200).all(), "there is none"


def test_labels_of_objects_hold_capitals_with_two_accents() -> None:
    colour = (250, 0, 0)
    picture = draw_objects(np.zeros((300, 300, 3), np.uint8), [Drawn((20, 60, 200, 200), 0)], ["Ẫ"], [colour])
    label = picture[:60, 22:27]  # above the box of the object, between its edges
    first = np.nonzero((label != 0).any(axis=(1, 2)))[0][0]
    assert (label[first] == colour).all(), "the uppermost row has no ink of a letter"


CHINESE = ["打", "手"]
FIGURES: dict[str, Callable[[], np.ndarray]] = {
    "confusion": lambda: draw_confusion(torch.eye(2), CHINESE),
    "precision": lambda: draw_curves(np.ones((10, 11, 2, 1, 1)), CHINESE, "bbox"),
    "timeline": lambda: Timeline(torch.tensor([[0.0, 1.0], [1.0, 2.0]]), torch.eye(2)).draw(
        [IMAGE], CHINESE, PALETTE, "打.mp4"
    ),
}


@pytest.mark.parametrize("kind", FIGURES)
def test_no_warning_is_given_for_each_letter_that_matplotlib_lacks(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FIGURES[kind]()


def test_other_warnings_are_still_given() -> None:
    with pytest.warns(UserWarning, match="another"), boxes_for_missing_letters():
        warnings.warn("another", stacklevel=1)


def test_matplotlib_is_imported_by_the_first_text_and_not_before() -> None:
    code = "import sys, densevit.data.font; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
