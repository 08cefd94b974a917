"""Pictures beside each other."""

import numpy as np

from densevit.data.panels import side_by_side


def test_panels_of_unequal_size_do_not_overlap() -> None:
    picture = np.array(side_by_side({"a": np.zeros((10, 10, 3), np.uint8), "b": np.zeros((50, 20, 3), np.uint8)}))
    assert picture.shape == (50 + 24 + 8, 10 + 20 + 3 * 8, 3)
    assert (picture[24:74, 26:46] == 0).all()
    assert (picture[34:74, 8:18] == 255).all()
