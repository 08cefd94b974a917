"""The page of segmentation."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from densevit.predictor import Advance
from densevit.web.pages.task_page import PICTURE, TaskPage
from densevit.web.predicting import Found
from densevit.web.views.segmentation import SegmentationView

ALL = "all classes"


class SegmentationPage(TaskPage):
    """Classes over the image, with an opacity, and their shares."""

    accepts = "an image"
    keeps = "mask (PNG, number of the class of each pixel)"

    def build_controls(self) -> None:
        opacity = gr.Slider(0, 1, 0.5, step=0.05, label="Opacity of the classes")
        only = gr.Dropdown([ALL], value=ALL, label="Show", interactive=True, filterable=False)
        self.controls = self.live = [opacity, only]

    def build_outputs(self) -> None:
        picture = gr.Image(label="Classes", **PICTURE, elem_id="picture", alt_text="Classes")
        self.outputs = [picture, gr.HTML(elem_id="legend")]

    def view(self, found: Found, advance: Advance) -> SegmentationView:
        return SegmentationView(found.result)

    def show(self, view: SegmentationView, *values: Any) -> list[Any]:
        opacity, only = values
        return [view.picture(opacity, None if only == ALL else only), view.legend()]

    def reset(self, view: SegmentationView, values: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        opacity, _ = values
        return [gr.skip(), gr.Dropdown([ALL, *view.shares], value=ALL)], [opacity, ALL]
