"""The page of the classification of videos."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from densevit.data.class_prediction import SHOWN
from densevit.predictor import Advance, Predictor
from densevit.tasks.video.predictor import ClipPredictor
from densevit.web.pages.task_page import PICTURE, TaskPage
from densevit.web.predicting import Found
from densevit.web.views.video import VideoView, is_longer_than_a_window, sliding


class VideoPage(TaskPage):
    """The most probable classes, of long videos over time, and an annotated copy."""

    accepts = "a video"
    keeps = "probabilities (JSON)"

    def __init__(self, predictor: ClipPredictor) -> None:
        super().__init__(predictor)
        self.over_time = sliding(predictor)

    def chosen(self, path: Path, values: Sequence[Any]) -> Predictor:
        (windows,) = values
        return self.over_time if windows and is_longer_than_a_window(path, self.over_time) else self.predictor

    def build_controls(self) -> None:
        windows = gr.Checkbox(True, label="Over time", info="Each window of a long video is classified by itself.")
        self.controls = self.again = [windows]

    def build_outputs(self) -> None:
        scores = gr.Label(label="Most probable classes", num_top_classes=SHOWN, elem_id="scores")
        video = gr.Video(
            show_label=False, label="Annotated video", interactive=False, buttons=["download"], elem_id="video"
        )
        timeline = gr.Image(label="Over time", **PICTURE, elem_id="timeline", alt_text="Probabilities over time")
        self.outputs = [scores, video, timeline, gr.HTML(elem_id="segments")]

    def view(self, found: Found, advance: Advance) -> VideoView:
        return VideoView(found.result, found.folder, advance)

    def show(self, view: VideoView, *values: Any) -> list[Any]:
        return [view.scores, str(view.video), view.timeline, view.segments()]

    def about(self, view: VideoView) -> str:
        return f"{view.seconds:.1f} seconds"
