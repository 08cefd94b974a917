"""The page of the classification of images."""

from typing import Any

import gradio as gr

from densevit.data.class_prediction import SHOWN
from densevit.predictor import Advance
from densevit.web.pages.task_page import PICTURE, TaskPage
from densevit.web.predicting import Found
from densevit.web.views.classification import ClassificationView


class ClassificationPage(TaskPage):
    """The most probable classes of the image."""

    accepts = "an image"
    keeps = "probabilities of all classes (JSON)"

    def build_outputs(self) -> None:
        scores = gr.Label(label="Most probable classes", num_top_classes=SHOWN, elem_id="scores")
        picture = gr.Image(label="Image", **PICTURE, elem_id="picture", alt_text="Image")
        self.outputs = [scores, picture]

    def view(self, found: Found, advance: Advance) -> ClassificationView:
        return ClassificationView(found.result)

    def show(self, view: ClassificationView, *values: Any) -> list[Any]:
        return [view.scores, view.picture()]
