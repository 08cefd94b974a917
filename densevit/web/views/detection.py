"""An image with the objects found in it."""

import numpy as np

from densevit.predictor import Result
from densevit.web.views.markup import html_table, paragraph
from densevit.web.views.picture_size import read_for_display


class DetectionView:
    """The image in the size in which it is shown, and its objects.

    Args:
        result: Of a detector.

    Raises:
        DataError: The file cannot be read again.
    """

    def __init__(self, result: Result) -> None:
        self.image, self.size = read_for_display(result)
        self.found = result.prediction
        self.classes, self.palette = result.classes, result.predictor.palette

    def picture(self, min_score: float) -> np.ndarray:
        """Return the image ``(H, W, 3)``, uint8 RGB, with the objects of at least this score."""
        height, width = self.image.shape[:2]
        drawn = self.found.draw(self.image, self.classes, self.palette, min_score)
        return np.ascontiguousarray(drawn[:height, :width])  # without a legend: there is the table

    def table(self, min_score: float) -> str:
        """Return the objects of at least this score, the best first, in HTML."""
        kept = (self.found.scores >= min_score).nonzero()[:, 0].tolist()
        if not kept:
            return paragraph(f"No object has a score of {min_score:.2f} or more; {len(self.found.scores)} have less.")
        rows, colours = [], []
        for number, i in enumerate(kept, start=1):
            label = int(self.found.labels[i])
            x1, y1, x2, y2 = self.found.boxes[i].tolist()
            place = f"{x1:.0f}, {y1:.0f} to {x2:.0f}, {y2:.0f}"
            rows.append((str(number), self.classes[label], f"{self.found.scores[i]:.2f}", place))
            colours.append(self.palette[label])
        return html_table(("object", "class", "score", "box in pixels"), rows, colours)
