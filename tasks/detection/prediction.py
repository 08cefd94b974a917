"""What a detector predicts for one image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.tv_tensors import BoundingBoxes

from densevit.data.prediction import Palette
from densevit.data.prediction_files import exact, read_json, write_json
from densevit.structures import BoxTarget
from densevit.tasks.detection.drawing import Drawn, draw_objects
from densevit.tasks.detection.masks import RLE, encode_all, resize, to_rle

MIN_SCORE = 0.3  # of what is drawn


@dataclass(frozen=True)
class DetPrediction:
    """The n objects of one image, on the CPU, the best score first.

    Attributes:
        boxes: ``(n, 4)`` float32, x1, y1, x2, y2 in pixels of the original image.
        scores: ``(n,)`` float32, between 0 and 1.
        labels: ``(n,)`` int64, indices of classes.
        size: Height and width of the original image.
        masks: One for each object, of that size; None from a detector of boxes only.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    size: tuple[int, int]
    masks: tuple[RLE, ...] | None = None

    def draw(
        self, image: np.ndarray, classes: Sequence[str], palette: Palette, min_score: float = MIN_SCORE
    ) -> np.ndarray:
        """Return the image ``(H, W, 3)``, uint8 RGB, with boxes, masks, names and scores of at least ``min_score``."""
        scale = _scale(image, self.size)
        objects = [
            Drawn(
                box=tuple((self.boxes[i].double().numpy() * scale).tolist()),
                label=int(self.labels[i]),
                score=float(self.scores[i]),
                mask=None if self.masks is None else resize(self.masks[i], *image.shape[:2]),
            )
            for i in (self.scores >= min_score).nonzero()[:, 0].tolist()
        ]
        return draw_objects(image, objects, classes, palette)

    @staticmethod
    def draw_truth(image: np.ndarray, target: BoxTarget, classes: Sequence[str], palette: Palette) -> np.ndarray:
        """Draw true objects as predicted ones are drawn, crowds dashed and hatched.

        Where the masks, or boxes that are ``BoundingBoxes``, say that the target was made for another size, it is
        scaled to that of the image.
        """
        scale = _scale(image, _canvas(target) or image.shape[:2])
        masks = None if target.masks is None else encode_all(target.masks.cpu().numpy())
        objects = [
            Drawn(
                box=tuple((box.double().cpu().numpy() * scale).tolist()),
                label=int(target.labels[i]),
                mask=None if masks is None else resize(masks[i], *image.shape[:2]),
                crowd=bool(target.crowd[i]),
            )
            for i, box in enumerate(target.boxes.as_subclass(Tensor))
        ]
        return draw_objects(image, objects, classes, palette)

    def save(self, stem: Path) -> Path:
        """Write all to ``<stem>.json``, boxes as x, y, width, height, in as many digits as give them back exactly."""
        content = {
            "size": list(self.size),
            "boxes": exact(xywh(self.boxes).tolist()),
            "scores": exact(self.scores.tolist()),
            "labels": self.labels.tolist(),
            "masks": None if self.masks is None else [{**m, "counts": m["counts"].decode("ascii")} for m in self.masks],
        }
        return write_json(stem, content)

    @classmethod
    def load(cls, stem: Path) -> "DetPrediction":
        """Read what `save` wrote.

        Raises:
            DataError: The file is missing or damaged.
        """
        return read_json(stem, _parse, "predicted boxes")

    def summary(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return, under "objects", the class, score and box (x1, y1, x2, y2) of each, the best score first."""
        rows = zip(self.labels.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True)
        return {
            "objects": [
                {"class": classes[label], "score": round(score, 4), "box": [round(side, 2) for side in box]}
                for label, score, box in rows
            ]
        }


def xywh(boxes: Tensor) -> np.ndarray:
    """Return boxes ``(n, 4)`` of corners as x, y, width and height, float64."""
    corners = boxes.as_subclass(Tensor).double().cpu().numpy()
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def _parse(content: dict[str, Any]) -> DetPrediction:
    height, width = (int(side) for side in content["size"])
    boxes = torch.tensor(content["boxes"], dtype=torch.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    scores = torch.tensor(content["scores"], dtype=torch.float32)
    labels = torch.tensor(content["labels"], dtype=torch.int64)
    masks = content["masks"]
    if not len(boxes) == len(scores) == len(labels) == len(boxes if masks is None else masks):
        raise ValueError("boxes, scores, labels and masks are not as many")
    if not boxes.isfinite().all() or not scores.isfinite().all() or (labels < 0).any():
        raise ValueError("a box or score is not finite, or a label below 0")
    runs = None if masks is None else tuple(to_rle(mask, height, width) for mask in masks)
    return DetPrediction(boxes.float(), scores, labels, (height, width), runs)


def _canvas(target: BoxTarget) -> Sequence[int] | None:
    if target.masks is not None:
        return target.masks.shape[-2:]
    return target.boxes.canvas_size if isinstance(target.boxes, BoundingBoxes) else None


def _scale(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    y, x = (new / old for new, old in zip(image.shape[:2], size, strict=True))
    return np.array([x, y, x, y])
