"""What a classification model predicts for one image, and pictures of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from densevit.data.prediction import Palette
from densevit.errors import DataError
from densevit.structures import ClassTarget

SHOWN = 5  # classes in pictures and summaries
MIN_SIDE, BAR_WIDTH, NAME_WIDTH, BAR_HEIGHT, ROW, MARGIN, FONT_SIZE = 160, 180, 60, 7, 30, 6, 14


@dataclass(frozen=True)
class ClassPrediction:
    """``scores`` are the probabilities of the classes, float32 ``(K,)``, on the CPU."""

    scores: Tensor

    def draw(self, image: np.ndarray, classes: Sequence[str], palette: Palette) -> np.ndarray:
        """Return the image ``(H, W, 3)``, uint8 RGB, with bars of the most probable classes to its right."""
        rows = [(f"{classes[i]}  {score:.1%}", tuple(palette[i]), score) for i, score in self._best()]
        return np.asarray(_with_bars(_enlarged(image), rows))

    @staticmethod
    def draw_truth(image: np.ndarray, target: ClassTarget, classes: Sequence[str], palette: Palette) -> np.ndarray:
        """Draw the name of the true class, or true probabilities as predicted ones are drawn."""
        if target.label.ndim == 1:
            return ClassPrediction(target.label.float().cpu()).draw(image, classes, palette)
        index = int(target.label)
        return np.asarray(_with_bars(_enlarged(image), [(classes[index], tuple(palette[index]), 1.0)], NAME_WIDTH))

    def save(self, stem: Path) -> Path:
        """Write the scores of all classes to ``<stem>.json``, in as many digits as give them back exactly."""
        path = stem.with_name(f"{stem.name}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"scores": [float(f"{score:.9g}") for score in self.scores.tolist()]}))
        return path

    @classmethod
    def load(cls, stem: Path) -> "ClassPrediction":
        """Read the scores that `save` wrote.

        Raises:
            DataError: The file is missing or damaged.
        """
        path = stem.with_name(f"{stem.name}.json")
        try:
            return cls(torch.tensor(json.loads(path.read_text())["scores"], dtype=torch.float32))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: no scores of classes ({error}); write them with tools/test.py --out") from error

    def summary(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return the most probable "class", and the "scores" of the first few."""
        best = {classes[i]: round(score, 6) for i, score in self._best()}
        return {"class": next(iter(best)), "scores": best}

    def _best(self) -> list[tuple[int, float]]:
        """Return (class, score) of the most probable, the first in any case, others if they are not 0."""
        scores, indices = self.scores.topk(min(SHOWN, len(self.scores)))
        best = list(zip(indices.tolist(), scores.tolist(), strict=True))
        return best[:1] + [(index, score) for index, score in best[1:] if score > 0]


def _enlarged(image: np.ndarray) -> Image.Image:
    picture = Image.fromarray(image)
    factor = max(1.0, MIN_SIDE / min(picture.size))
    return picture.resize((round(factor * picture.width), round(factor * picture.height)), Image.Resampling.BICUBIC)


def _with_bars(
    picture: Image.Image, rows: Sequence[tuple[str, tuple[int, ...], float]], full: int = BAR_WIDTH
) -> Image.Image:
    """Add (text, colour, share of the ``full`` length of a bar) to the right of a picture."""
    font = ImageFont.load_default(FONT_SIZE)
    width = max(full, *(int(font.getlength(text)) + 1 for text, _, _ in rows)) + 2 * MARGIN
    height = max(picture.height, len(rows) * ROW + 2 * MARGIN)
    canvas = Image.new("RGB", (picture.width + width, height), "white")
    canvas.paste(picture)
    draw, left = ImageDraw.Draw(canvas), picture.width + MARGIN
    for i, (text, colour, score) in enumerate(rows):
        top = MARGIN + i * ROW
        draw.text((left, top - 2), text, fill="black", font=font)
        bar = (left, top + FONT_SIZE + 3, left + full, top + FONT_SIZE + 3 + BAR_HEIGHT)
        draw.rectangle(bar, fill=(235, 235, 235))
        draw.rectangle((*bar[:2], left + max(1, round(full * score)), bar[3]), fill=colour)
    return canvas
