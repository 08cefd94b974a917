"""What a segmentation model predicts for one image, and pictures of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from densevit.data.legend import with_legend
from densevit.data.prediction import Palette
from densevit.data.prediction_files import file_of, new_file
from densevit.data.readers import read_mask
from densevit.data.transforms import resize_nearest
from densevit.structures import SegTarget


@dataclass(frozen=True)
class SegPrediction:
    """``mask`` is ``(H, W)`` at the original size of the image: class indices, uint8 or int16, on the CPU."""

    mask: Tensor

    def draw(self, image: np.ndarray, classes: Sequence[str], palette: Palette) -> np.ndarray:
        """Return the image ``(H, W, 3)``, uint8 RGB, coloured by class, with a legend of those in it to its right."""
        picture = Image.fromarray(overlay(image, self.mask.numpy(), palette))
        shares = self._shares(len(classes))
        rows = [(f"{classes[i]}  {share:.1%}", tuple(palette[i])) for i, share in shares.items()]
        return np.asarray(with_legend(picture, rows))

    @staticmethod
    def draw_truth(image: np.ndarray, target: SegTarget, classes: Sequence[str], palette: Palette) -> np.ndarray:
        """Draw the true mask, brought to the size of the image, as a predicted one is drawn."""
        return SegPrediction(resize_nearest(target.mask, image.shape[:2])).draw(image, classes, palette)

    def save(self, stem: Path) -> Path:
        """Write the class indices to the PNG file ``<stem>.png`` and return its path."""
        path = new_file(stem, ".png")
        mask = self.mask.numpy()
        Image.fromarray(mask if mask.dtype == np.uint8 else mask.astype(np.uint16)).save(path)
        return path

    @classmethod
    def load(cls, stem: Path) -> "SegPrediction":
        """Read the class indices that `save` wrote.

        Raises:
            DataError: The file is missing or damaged.
        """
        return cls(read_mask(file_of(stem, ".png")).as_subclass(Tensor))

    def summary(self, classes: Sequence[str]) -> dict[str, dict[str, float]]:
        """Return, under "shares", the share of the pixels of each class that occurs, the largest first."""
        return {"shares": {classes[i]: round(share, 6) for i, share in self._shares(len(classes)).items()}}

    def _shares(self, num_classes: int) -> dict[int, float]:
        ids, counts = self.mask.unique(return_counts=True)
        shares = dict(zip(ids.tolist(), (counts / self.mask.numel()).tolist(), strict=True))
        return {i: shares[i] for i in sorted(shares, key=shares.__getitem__, reverse=True) if 0 <= i < num_classes}


def overlay(image: np.ndarray, mask: np.ndarray, palette: Palette, opacity: float = 0.5) -> np.ndarray:
    """Colour an image ``(H, W, 3)``, uint8 RGB, by ``mask`` ``(H, W)``; ids beyond the palette leave it as it is."""
    colours = np.asarray(palette, dtype=np.float32)
    known = (mask >= 0) & (mask < len(colours))
    picture = image.copy()
    mixed = (1 - opacity) * image[known] + opacity * colours[mask[known]]
    picture[known] = np.rint(mixed).astype(np.uint8)
    return picture
