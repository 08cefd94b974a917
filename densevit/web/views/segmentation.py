"""A segmented image."""

import numpy as np

from densevit.data.prediction import Palette
from densevit.data.regions import paint_regions
from densevit.predictor import Result
from densevit.web.views.markup import html_table
from densevit.web.views.picture_size import NUMBER_SIZE, read_for_display, resize_ids


class SegmentationView:
    """The image and its classes in the size in which they are shown.

    Args:
        result: Of a segmentation model.

    Raises:
        DataError: The file cannot be read again.
    """

    def __init__(self, result: Result) -> None:
        self.image, self.size = read_for_display(result)
        height, width = self.image.shape[:2]
        self.ids = resize_ids(result.prediction.mask.numpy(), (height, width))
        self.classes = result.classes
        self.palette: Palette = result.predictor.palette
        self.shares: dict[str, float] = result.prediction.summary(self.classes)["shares"]

    def picture(self, opacity: float, only: str | None = None) -> np.ndarray:
        """Return the image ``(H, W, 3)``, uint8 RGB, coloured by class.

        Args:
            opacity: Of the colours, 0 to 1.
            only: The one class to colour; None colours all.
        """
        shown = range(len(self.classes)) if only is None else [self.classes.index(only)]
        return paint_regions(self.image, self.ids, shown, self.palette, opacity, NUMBER_SIZE)

    def legend(self) -> str:
        """Return a table of the classes in the image, the largest first, in HTML."""
        indices = [self.classes.index(name) for name in self.shares]
        shares = [f"{share:.1%}" if share >= 0.001 else "< 0.1%" for share in self.shares.values()]
        rows = [(str(i), self.classes[i], share) for i, share in zip(indices, shares, strict=True)]
        return html_table(("number", "class", "pixels"), rows, [self.palette[i] for i in indices])
