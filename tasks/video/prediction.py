"""What a classifier of clips predicts for one video."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from densevit.data.class_prediction import ClassPrediction
from densevit.errors import DataError


@dataclass(frozen=True)
class ClipPrediction(ClassPrediction):
    """``scores`` ``(K,)`` are the means over the ``views`` ``(V, K)``, the probabilities of each clip and crop."""

    views: Tensor

    def save(self, stem: Path) -> Path:
        """Write the scores of all views to ``<stem>.json``, in as many digits as give them back exactly."""
        path = stem.with_name(f"{stem.name}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [[float(f"{score:.9g}") for score in view] for view in [self.scores.tolist(), *self.views.tolist()]]
        path.write_text(json.dumps({"scores": rows[0], "views": rows[1:]}))
        return path

    @classmethod
    def load(cls, stem: Path) -> "ClipPrediction":
        """Read the scores that `save` wrote.

        Raises:
            DataError: The file is missing or damaged.
        """
        path = stem.with_name(f"{stem.name}.json")
        try:
            content = json.loads(path.read_text())
            return cls(*(torch.tensor(content[name], dtype=torch.float32) for name in ("scores", "views")))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: no scores of clips ({error}); write them with tools/test.py --out") from error
