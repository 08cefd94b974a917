"""The page of the segmentation of volumes."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from densevit.data.regions import OPACITY
from densevit.predictor import Advance
from densevit.web.pages.task_page import PICTURE, TaskPage
from densevit.web.predicting import Found
from densevit.web.views.volume import PLANES, VolumeView


class VolumePage(TaskPage):
    """Slices with the classes over them, and the volumes of these."""

    accepts = "a volume (NIfTI)"
    keeps = "labels (NIfTI)"

    def build_controls(self) -> None:
        plane = gr.Radio(list(PLANES), value=next(iter(PLANES)), label="Plane")
        number = gr.Slider(1, 2, 1, step=1, label="Slice")
        opacity = gr.Slider(0, 1, OPACITY, step=0.05, label="Opacity of the classes")
        self.controls, self.live, self.resets = [plane, number, opacity], [number, opacity], [plane]

    def build_outputs(self) -> None:
        picture = gr.Image(label="Slice", **PICTURE, elem_id="picture", alt_text="Slice")
        self.outputs = [picture, gr.HTML(elem_id="volumes")]

    def view(self, found: Found, advance: Advance) -> VolumeView:
        return VolumeView(found.result)

    def show(self, view: VolumeView, *values: Any) -> list[Any]:
        plane, number, opacity = values
        return [view.picture(plane, int(number), opacity), view.table()]

    def reset(self, view: VolumeView, values: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        plane, _, opacity = values
        number = view.fullest(plane)
        slider = gr.Slider(1, max(2, view.slices(plane)), number, step=1)
        return [gr.skip(), slider, gr.skip()], [plane, number, opacity]

    def about(self, view: VolumeView) -> str:
        return view.about()
