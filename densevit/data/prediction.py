"""What tools and hooks ask of a prediction, whatever the task."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Palette = Sequence[Sequence[int]]


class Prediction(Protocol):
    """What a model predicts for one sample, on the CPU; a head makes it, its dataset names its class."""

    def draw(self, image: np.ndarray, classes: Sequence[str], palette: Palette) -> np.ndarray:
        """Return a picture of it over or beside the image ``(H, W, 3)``, uint8 RGB, as it was read."""

    @staticmethod
    def draw_truth(image: np.ndarray, target: Any, classes: Sequence[str], palette: Palette) -> np.ndarray:
        """Draw a target as a prediction is drawn; the image may have another size than the target was made for."""

    def save(self, stem: Path) -> Path:
        """Write all of it that is scored to the file ``<stem>.<suffix>``, and return its path."""

    @classmethod
    def load(cls, stem: Path) -> "Prediction":
        """Read back what `save` wrote.

        Raises:
            DataError: The file is missing or damaged.
        """

    def summary(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return what ``predictions.json`` tells of it."""
