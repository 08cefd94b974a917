"""The size in which the page shows pictures."""

import cv2
import numpy as np

from densevit.predictor import Result

SMALLEST, LONGEST = 640, 1280  # pixels of the longer side: smaller ones are enlarged, larger ones shrunk
NUMBER_SIZE = 20  # of the font of numbers of regions: legible where a narrow page halves them


def display_size(height: int, width: int) -> tuple[int, int]:
    """Return the (height, width) in which a picture of this size is shown."""
    longer = max(height, width)
    factor = min(max(longer, SMALLEST), LONGEST) / longer
    return max(1, round(height * factor)), max(1, round(width * factor))


def read_for_display(result: Result) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the input of a result in the size in which it is shown, ``(H, W, 3)``, and its own (height, width).

    Raises:
        DataError: The file cannot be read again.
    """
    image = result.predictor.draw_input(result.source)
    height, width = image.shape[:2]
    return resize_picture(image, display_size(height, width)), (height, width)


def resize_picture(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a picture ``(H, W, 3)`` or ``(H, W)``, uint8, in another (height, width)."""
    shrinks = size[0] < pixels.shape[0]
    return cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def resize_ids(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return classes of pixels ``(H, W)``, uint8 or int16, in another (height, width), by the nearest pixel."""
    return cv2.resize(ids, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
