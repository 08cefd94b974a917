"""Labels on sheets of slices."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from densevit.data.legend import with_legend
from densevit.data.prediction import Palette
from densevit.data.regions import paint_regions


def draw_labels(image: np.ndarray, ids: np.ndarray, names: Sequence[tuple[int, str]], palette: Palette) -> np.ndarray:
    """Colour and number regions of a picture, and add a legend to its right.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        ids: ``(H, W)`` uint8, classes; 0 is left as it is.
        names: (class, text) of the rows of the legend.
        palette: A colour for each class.
    """
    picture = Image.fromarray(paint_regions(image, ids, [i for i in np.unique(ids) if i], palette))
    return np.asarray(with_legend(picture, [(f"{i}  {text}", tuple(palette[i])) for i, text in names]))
