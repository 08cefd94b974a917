"""A classified video: probabilities, their course over time, an annotated copy."""

import copy
from pathlib import Path
from typing import Any

import numpy as np

from densevit.data.class_prediction import ClassPrediction
from densevit.data.video import video_info
from densevit.predictor import Advance, Result, unwatched
from densevit.tasks.video.annotated import FALLBACK_FPS
from densevit.tasks.video.predictor import ClipPredictor
from densevit.tasks.video.timeline import Timeline
from densevit.web.views.classification import probabilities
from densevit.web.views.markup import html_table, paragraph


class VideoView:
    """What is shown of a video.

    Args:
        result: Of a classifier of clips.
        folder: Where the annotated copy goes.
        advance: Is told the share of the copy that was just written.

    Attributes:
        scores: Of the most probable classes, of windows their means.
        video: The annotated copy.
        timeline: A picture of the probabilities over time, ``(H, W, 3)`` uint8 RGB; None of a single clip.

    Raises:
        DataError: The file cannot be read again.
    """

    def __init__(self, result: Result, folder: Path, advance: Advance = unwatched) -> None:
        self.found = result.prediction
        self.classes, self.palette = result.classes, result.predictor.palette
        over_time = isinstance(self.found, Timeline)
        whole = ClassPrediction(self.found.scores.mean(dim=0)) if over_time else self.found
        self.scores = probabilities(whole, self.classes)
        files = result.save(folder, advance)
        self.video = files["video"]
        self.timeline: np.ndarray | None = result.plot() if over_time else None
        info = video_info(result.source.value)
        self.seconds = info.frames / (info.fps or FALLBACK_FPS)

    def segments(self) -> str:
        """Return a table of the segments of a timeline, in HTML."""
        if not isinstance(self.found, Timeline):
            return paragraph("The video was classified as a whole.")
        found = self.found.segments()
        rows = [(f"{s.start:.2f}", f"{s.end:.2f}", self.classes[s.label], f"{s.score:.1%}") for s in found]
        columns = ("from second", "to second", "class", "mean probability")
        return html_table(columns, rows, [self.palette[s.label] for s in found])


def sliding(predictor: ClipPredictor) -> ClipPredictor:
    """Return a predictor of the same model that classifies the windows of a video one after the other."""
    other = copy.copy(predictor)
    other.slide(predictor.dataset)
    return other


def is_longer_than_a_window(path: Path, predictor: ClipPredictor) -> bool:
    """Say whether a video has more than one window.

    Raises:
        DataError: It cannot be read.
    """
    info = video_info(path)
    windows: Any = predictor.windows
    return info.frames > windows.in_frames(info.fps or FALLBACK_FPS)[0]
