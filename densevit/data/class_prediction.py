"""What a classifier predicts for one sample, and pictures of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from densevit.data.font import font
from densevit.data.prediction import Palette
from densevit.data.prediction_files import exact, read_json, write_json
from densevit.structures import ClassTarget

SHOWN = 5  # classes in pictures and summaries
Bar = tuple[str, tuple[int, ...], float]  # text, colour, share of the full length
MIN_SIDE, BAR_WIDTH, NAME_WIDTH, BAR_HEIGHT, ROW, MARGIN, FONT_SIZE = 160, 180, 60, 7, 30, 6, 14


@dataclass(frozen=True)
class ClassPrediction:
    """``scores`` are the probabilities of the classes, float32 ``(K,)``, on the CPU."""

    scores: Tensor

    def draw(self, image: np.ndarray, classes: Sequence[str], palette: Palette) -> np.ndarray:
        """Return the image ``(H, W, 3)``, uint8 RGB, with bars of the most probable classes to its right."""
        return np.asarray(_beside(_enlarged(image), draw_bars(bars_of(self, classes, palette))))

    @staticmethod
    def draw_truth(image: np.ndarray, target: ClassTarget, classes: Sequence[str], palette: Palette) -> np.ndarray:
        """Draw the name of the true class, or true probabilities as predicted ones are drawn."""
        if target.label.ndim == 1:
            return ClassPrediction(target.label.float().cpu()).draw(image, classes, palette)
        index = int(target.label)
        bars = draw_bars([(classes[index], tuple(palette[index]), 1.0)], NAME_WIDTH)
        return np.asarray(_beside(_enlarged(image), bars))

    def save(self, stem: Path) -> Path:
        """Write the scores of all classes to ``<stem>.json``, in as many digits as give them back exactly."""
        return write_json(stem, {"scores": exact(self.scores.tolist())})

    @classmethod
    def load(cls, stem: Path) -> "ClassPrediction":
        """Read the scores that `save` wrote.

        Raises:
            DataError: The file is missing or damaged.
        """
        return read_json(
            stem, lambda content: cls(torch.tensor(content["scores"], dtype=torch.float32)), "scores of classes"
        )

    def summary(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return the most probable "class", and the "scores" of the first few."""
        best = {classes[i]: round(score, 6) for i, score in self.best()}
        return {"class": next(iter(best)), "scores": best}

    def best(self) -> list[tuple[int, float]]:
        """Return (class, score) of the most probable, the first in any case, others if they are not 0."""
        scores, indices = self.scores.topk(min(SHOWN, len(self.scores)))
        best = list(zip(indices.tolist(), scores.tolist(), strict=True))
        return best[:1] + [(index, score) for index, score in best[1:] if score > 0]


def _enlarged(image: np.ndarray) -> Image.Image:
    picture = Image.fromarray(image)
    factor = max(1.0, MIN_SIDE / min(picture.size))
    return picture.resize((round(factor * picture.width), round(factor * picture.height)), Image.Resampling.BICUBIC)


def bars_of(prediction: ClassPrediction, classes: Sequence[str], palette: Palette) -> list[Bar]:
    """Return the bars of the most probable classes."""
    return [(f"{classes[i]}  {score:.1%}", tuple(palette[i]), score) for i, score in prediction.best()]


def shortened(name: str, length: int = 24) -> str:
    """Return a name that fits beside a picture; what is cut off leaves dots."""
    return name if len(name) <= length else f"{name[: length - 3].rstrip()}..."


def draw_bars(bars: Sequence[Bar], full: int = BAR_WIDTH, scale: float = 1.0, width: int = 0) -> Image.Image:
    """Return a picture of bars below their texts.

    Args:
        bars: Text, colour, and share of the ``full`` length.
        full: Pixels of a bar of 1, before scaling.
        scale: Of everything; 1 is the size for a still picture.
        width: Pixels of the picture, where it is not as wide as bars and texts; longer texts are cut off.
    """
    full, row, margin, size = (round(scale * n) for n in (full, ROW, MARGIN, FONT_SIZE))
    letters = font(size)
    width = width or max(full, *(int(letters.getlength(text)) + 1 for text, _, _ in bars)) + 2 * margin
    full = min(full, width - 2 * margin)
    canvas = Image.new("RGB", (width, len(bars) * row + 2 * margin), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (text, colour, score) in enumerate(bars):
        top = margin + i * row
        draw.text((margin, top - 2), text, fill="black", font=letters)
        above, height = top + size + round(3 * scale), round(BAR_HEIGHT * scale)
        draw.rectangle((margin, above, margin + full, above + height), fill=(235, 235, 235))
        draw.rectangle((margin, above, margin + max(1, round(full * score)), above + height), fill=colour)
    return canvas


def _beside(picture: Image.Image, bars: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (picture.width + bars.width, max(picture.height, bars.height)), "white")
    canvas.paste(picture)
    canvas.paste(bars, (picture.width, 0))
    return canvas
