"""The page of detection and instance segmentation."""

from typing import Any

import gradio as gr

from densevit.predictor import Advance
from densevit.tasks.detection.prediction import MIN_SCORE
from densevit.web.pages.task_page import PICTURE, TaskPage
from densevit.web.predicting import Found
from densevit.web.views.detection import DetectionView


class DetectionPage(TaskPage):
    """Objects on the image, from a score on, and a table of them."""

    accepts = "an image"
    keeps = "objects (JSON)"

    def build_controls(self) -> None:
        self.controls = self.live = [gr.Slider(0, 1, MIN_SCORE, step=0.01, label="Objects from this score on")]

    def build_outputs(self) -> None:
        picture = gr.Image(label="Objects", **PICTURE, elem_id="picture", alt_text="Objects")
        self.outputs = [picture, gr.HTML(elem_id="objects")]

    def view(self, found: Found, advance: Advance) -> DetectionView:
        return DetectionView(found.result)

    def show(self, view: DetectionView, *values: Any) -> list[Any]:
        (min_score,) = values
        return [view.picture(min_score), view.table(min_score)]
