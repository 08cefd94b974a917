"""The whole page: the model, what is uploaded, and what was found in it."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from densevit.data.class_prediction import ClassPrediction
from densevit.errors import ConfigError, DataError
from densevit.predictor import Predictor
from densevit.registry import DATASETS
from densevit.tasks.detection.prediction import DetPrediction
from densevit.tasks.medical.prediction import VolumePrediction
from densevit.tasks.segmentation.prediction import SegPrediction
from densevit.tasks.video.prediction import ClipPrediction
from densevit.web.examples import Example
from densevit.web.pages.classification_page import ClassificationPage
from densevit.web.pages.detection_page import DetectionPage
from densevit.web.pages.other_page import OtherPage
from densevit.web.pages.segmentation_page import SegmentationPage
from densevit.web.pages.task_page import TaskPage
from densevit.web.pages.video_page import VideoPage
from densevit.web.pages.volume_page import VolumePage
from densevit.web.predicting import Found, naming_upload, predict
from densevit.web.views.markup import paragraph

PAGES: dict[type, type[Any]] = {  # the first that fits: a prediction of clips is one of classes, too
    ClipPrediction: VideoPage,
    ClassPrediction: ClassificationPage,
    DetPrediction: DetectionPage,
    SegPrediction: SegmentationPage,
    VolumePrediction: VolumePage,
}
KEPT = 4 * 3600  # seconds that uploads, and what was found in them, are kept
WAITING = 20  # predictions that may wait for their turn
SCROLL = """() => {
    const found = document.getElementById("found");
    if (found.getBoundingClientRect().left < 100) found.scrollIntoView({behavior: "smooth"});
}"""  # where it is below, not beside, what was operated
START = "Upload {accepts}, or choose an example."


def build_page(predictor: Predictor, name: str, examples: Sequence[Example]) -> gr.Blocks:
    """Return the page of a model.

    Args:
        predictor: The model; `densevit.load` made it.
        name: What it is called.
        examples: Inputs that can be tried.

    Raises:
        ConfigError: The model takes no single files.
    """
    task = task_page(predictor)
    with gr.Blocks(title=f"{name} - densevit", analytics_enabled=False, delete_cache=(KEPT // 8, KEPT)) as page:
        gr.Markdown(f"# {name}\n{describe(predictor)}", elem_id="model")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                upload = gr.File(label=f"Upload {task.accepts}", height=140, elem_id="upload")
                status = gr.HTML(paragraph(START.format(accepts=task.accepts)), elem_id="status")
                task.build_controls()
                gallery = _gallery(examples)
            with gr.Column(scale=3, min_width=300, elem_id="found"):
                task.build_outputs()
                download = gr.DownloadButton(f"Download: {task.keeps}", interactive=False, elem_id="download")
        state = gr.State(None, time_to_live=KEPT)
        _connect(task, upload, gallery, [state, status, download], [example.path for example in examples])
    page.queue(max_size=WAITING, default_concurrency_limit=1)
    return page


def task_page(predictor: Predictor) -> TaskPage:
    """Return the part of the page that belongs to the task of a model.

    Raises:
        ConfigError: The model reads volumes of several files.
    """
    dataset: Any = DATASETS.get(predictor.dataset["type"])
    kind = dataset.prediction
    channels = getattr(predictor.model.backbone, "in_channels", 1)
    if issubclass(kind, VolumePrediction) and channels != 1:
        raise ConfigError(
            f"the model reads volumes of {channels} files, and the page takes one: list them in dataset.json and "
            "predict them with densevit test --out"
        )
    return next((page for found, page in PAGES.items() if issubclass(kind, found)), OtherPage)(predictor)


def describe(predictor: Predictor) -> str:
    """Return what the model is, as a line."""
    model = predictor.model
    parts = [type(model.backbone).__name__, type(model.head).__name__]
    count = sum(parameter.numel() for parameter in model.parameters())
    device = next(model.parameters()).device
    size = f"{count / 1e6:.3g} million" if count >= 1e6 else f"{count:,}"
    return f"{' with '.join(parts)} · {size} parameters · {len(predictor.classes)} classes · on {device}"


def _gallery(examples: Sequence[Example]) -> gr.Gallery:
    return gr.Gallery(
        [(example.thumbnail, example.path.name) for example in examples],
        label="Examples",
        columns=2,
        height="auto",
        object_fit="cover",
        format="png",
        allow_preview=False,
        buttons=[],
        interactive=False,
        elem_id="examples",
    )


def _connect(task: TaskPage, upload: Any, gallery: Any, fixed: list[Any], examples: Sequence[Path]) -> None:
    """Say what happens when something is uploaded, chosen or moved."""
    state, *_ = fixed
    everything = [*fixed, *task.controls, *task.outputs]
    model: dict[str, Any] = {
        "outputs": everything,
        "concurrency_id": "model",  # one prediction at a time, wherever it comes from
        "concurrency_limit": 1,
        "show_progress_on": fixed[1],
        "api_visibility": "private",
    }
    quick: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last", "api_visibility": "private"}

    def uploaded(path: str, progress: gr.Progress = gr.Progress(), *values: Any) -> Iterator[list[Any]]:  # noqa: B008
        yield from run(task, Path(path), values, progress)

    def selected(
        event: gr.SelectData,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
        *values: Any,
    ) -> Iterator[list[Any]]:
        yield from run(task, examples[event.index], values, progress)

    def again(
        found: Found | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
        *values: Any,
    ) -> Iterator[list[Any]]:
        if found is None:
            yield [gr.skip() for _ in everything]
        else:
            yield from run(task, found.result.source.value, values, progress)

    upload.upload(uploaded, [upload, *task.controls], **model).success(None, js=SCROLL)
    gallery.select(selected, task.controls, **model).success(lambda: None, outputs=upload, js=SCROLL, **quick)
    upload.clear(partial(_blank, task, START.format(accepts=task.accepts)), outputs=everything, **quick)
    for control in task.again:
        control.input(again, [state, *task.controls], **model)
    for control in task.live:
        control.input(partial(redraw, task), [state, *task.controls], task.outputs, **quick)
    for control in task.resets:
        control.input(partial(reset, task), [state, *task.controls], [*task.controls, *task.outputs], **quick)


def run(task: TaskPage, path: Path, values: Sequence[Any], progress: Any) -> Iterator[list[Any]]:
    """Predict a file: yield the values of all widgets without, then with what was found.

    What is wrong with a file that cannot be used stands in the place of what was found.
    """
    yield _blank(task, f"{path.name} is being predicted.")
    share = 0.0

    def advance(part: float) -> None:
        nonlocal share
        share += part
        progress(min(1.0, share / 2), desc=path.name)  # half of it is the prediction

    try:
        with naming_upload(path):
            found = predict(task.chosen(path, values), path, advance)
            found.draw(lambda: task.view(found, advance))
            changes, values = task.reset(found.view, values)
            status = paragraph(f"{path.name}: {task.about(found.view)} · {found.times()}")
            button = gr.DownloadButton(value=str(found.output()), interactive=True)
            yield [found, status, button, *changes, *task.show(found.view, *values)]
    except DataError as error:
        yield _blank(task, str(error), "problem")


def redraw(task: TaskPage, found: Found | None, *values: Any) -> list[Any]:
    """Return the values of the outputs for other values of the controls."""
    return task.empty() if found is None else task.show(found.view, *values)


def reset(task: TaskPage, found: Found | None, *values: Any) -> list[Any]:
    """Return changes of the controls, and the values of the outputs after these."""
    if found is None:
        return [*(gr.skip() for _ in values), *task.empty()]
    changes, values_after = task.reset(found.view, values)
    return [*changes, *task.show(found.view, *values_after)]


def _blank(task: TaskPage, text: str, kind: str = "note") -> list[Any]:
    controls = [gr.skip() for _ in task.controls]
    return [None, paragraph(text, kind), gr.DownloadButton(value=None, interactive=False), *controls, *task.empty()]
