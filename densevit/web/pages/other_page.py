"""The page of a task that is not one of ours."""

import json
from typing import Any

import gradio as gr

from densevit.predictor import Advance
from densevit.web.pages.task_page import PICTURE, TaskPage
from densevit.web.predicting import Found


class OtherPage(TaskPage):
    """The picture that a prediction draws of itself, and its summary."""

    accepts = "a file"
    keeps = "prediction"

    def build_outputs(self) -> None:
        picture = gr.Image(label="Prediction", **PICTURE, elem_id="picture", alt_text="Prediction")
        self.outputs = [picture, gr.Code(language="json", label="Summary", elem_id="summary", interactive=False)]

    def view(self, found: Found, advance: Advance) -> Found:
        return found

    def show(self, view: Found, *values: Any) -> list[Any]:
        summary = view.result.prediction.summary(view.result.classes)
        return [view.result.plot(), json.dumps(summary, indent=1, ensure_ascii=False)]

    def about(self, view: Found) -> str:
        return view.result.source.name
