"""What a classifier of clips predicts for one video."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from densevit.data.class_prediction import ClassPrediction
from densevit.data.prediction_files import exact, read_json, write_json


@dataclass(frozen=True)
class ClipPrediction(ClassPrediction):
    """``scores`` ``(K,)`` are the means over the ``views`` ``(V, K)``, the probabilities of each clip and crop."""

    views: Tensor

    def save(self, stem: Path) -> Path:
        """Write the scores of all views to ``<stem>.json``, in as many digits as give them back exactly."""
        return write_json(stem, {"scores": exact(self.scores.tolist()), "views": exact(self.views.tolist())})

    @classmethod
    def load(cls, stem: Path) -> "ClipPrediction":
        """Read the scores that `save` wrote.

        Raises:
            DataError: The file is missing or damaged.
        """
        return read_json(
            stem,
            lambda content: cls(*(torch.tensor(content[name], dtype=torch.float32) for name in ("scores", "views"))),
            "scores of clips",
        )
