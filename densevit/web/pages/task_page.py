"""What the parts of the page that belong to a task have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from densevit.predictor import Advance, Predictor
from densevit.web.predicting import Found

# Of a gr.Image that shows something: not lossy, and without the button that publishes it on another host.
PICTURE: dict[str, Any] = {
    "format": "png",
    "interactive": False,
    "show_label": False,
    "buttons": ["download", "fullscreen"],
}


class TaskPage(ABC):
    """Widgets that change a picture, widgets that show what was found, and what the second show for the first.

    Args:
        predictor: The model.

    Attributes:
        accepts: What is uploaded, for people.
        keeps: What the file to download is called.
        controls: Widgets that are operated; `build_controls` makes them.
        live: Those of them that change what is shown, without a new prediction.
        again: Those after which the same file is predicted again.
        resets: Those of them that, as a new prediction does, change others by `reset`.
        outputs: Widgets that show it; `build_outputs` makes them.
    """

    accepts: str
    keeps: str

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.controls: list[Any] = []
        self.live: list[Any] = []
        self.again: list[Any] = []
        self.resets: list[Any] = []
        self.outputs: list[Any] = []

    def chosen(self, path: Path, values: Sequence[Any]) -> Predictor:
        """Return what predicts a file, for the values of the controls.

        Raises:
            DataError: The file cannot be read.
        """
        return self.predictor

    def build_controls(self) -> None:
        """Make the widgets that are operated; by default there are none."""
        self.controls = []

    @abstractmethod
    def build_outputs(self) -> None:
        """Make the widgets that show what was found."""

    @abstractmethod
    def view(self, found: Found, advance: Advance) -> Any:
        """Return what `show` needs, made once of a prediction.

        Raises:
            DataError: The file cannot be read again.
        """

    @abstractmethod
    def show(self, view: Any, *values: Any) -> list[Any]:
        """Return the values of the outputs, for those of the controls."""

    def reset(self, view: Any, values: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Return changes of the controls for what is to be shown, and their values after these."""
        return [gr.skip() for _ in values], list(values)

    def about(self, view: Any) -> str:
        """Return what is told of the input."""
        height, width = view.size
        return f"{width} x {height} pixels"

    def empty(self) -> list[Any]:
        """Return the values of the outputs while there is nothing to show."""
        return [None] * len(self.outputs)
