"""Regions on pictures."""

import numpy as np

from densevit.data.regions import paint_regions

PALETTE = [(255, 0, 0), (0, 0, 255)]


def test_only_what_is_shown_is_coloured() -> None:
    image, ids = np.full((40, 60, 3), 100, np.uint8), np.zeros((40, 60), np.int16)
    ids[:, 30:], ids[0, 0] = 1, 300
    drawn = paint_regions(image, ids, [1], PALETTE, 0.5)
    assert (drawn[:, :30] == 100).all()
    assert tuple(drawn[2, 55]) == (50, 50, 178)
    assert tuple(drawn[5, 30]) == (0, 0, 255)  # the outline


def test_numbers_are_whole_at_the_border_of_the_picture() -> None:
    image, ids = np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80), np.uint8)
    drawn = (paint_regions(image, ids, [0], [(0, 0, 0)], font_size=20) > 200).all(-1)
    rows, columns = np.nonzero(drawn)
    assert 20 < rows.mean() < 40
    assert 3 < columns.min() <= columns.max() < 77


def test_specks_by_the_thousand_take_no_time_and_bear_no_numbers() -> None:
    ids = np.random.default_rng(0).integers(0, 2, (600, 800)).astype(np.uint8)
    drawn = paint_regions(np.zeros((600, 800, 3), np.uint8), ids, [0, 1], [(9, 9, 9), (20, 20, 20)])
    assert drawn.max() <= 20
