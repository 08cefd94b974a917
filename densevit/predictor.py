"""A trained model applied to inputs; every task predicts through it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torchvision.transforms import v2

from densevit.data.dataset import DenseDataset
from densevit.data.readers import IMAGE_SUFFIXES, read_image
from densevit.engine.environment import choose_device
from densevit.errors import ConfigError, DataError
from densevit.inputs import Source, find_sources, image_array, is_single
from densevit.model import DenseModel
from densevit.structures import Meta, Sample, space_of
from densevit.tables import table

Advance = Callable[[float], object]  # is told the share of an input that was just done


def unwatched(share: float) -> None:
    """Do nothing: for predictions whose progress no one watches."""


@dataclass(frozen=True, repr=False)
class Result:
    """What was found in one input; `densevit.load` says how to get one.

    Attributes:
        source: The input.
        predictor: What made it.
        found: The prediction, or None if the input cannot be read.
        error: Why it cannot.
    """

    source: Source
    predictor: "Predictor"
    found: Any = None
    error: DataError | None = None

    def __repr__(self) -> str:
        """Return the input and the class of what was found, or the error."""
        return f"Result({self.input!r}, {self.error or type(self.found).__name__})"

    @property
    def input(self) -> str:
        """The path of the input, or "input_0" of the first, if that was in memory."""
        return str(self.source)

    @property
    def prediction(self) -> Any:
        """The prediction, on the CPU: its class is that of the task, such as `SegPrediction`.

        Raises:
            DataError: The input cannot be read.
        """
        if self.error is not None:
            raise self.error
        return self.found

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of their indices."""
        return self.predictor.classes

    def plot(self) -> np.ndarray:
        """Return a picture of it, ``(H, W, 3)``, uint8 RGB. A file is read again.

        Raises:
            DataError: The input cannot be read.
        """
        return self.predictor.draw(self.source, self.prediction)

    def save(self, folder: str | Path, advance: Advance = unwatched) -> dict[str, Path]:
        """Write picture and prediction below a folder, each in a sub-folder of its kind, and return their paths.

        Args:
            folder: Where to; ``overlays/NAME.jpg`` and ``outputs/NAME.png`` are in it then, for instance.
            advance: Is told the share that was just done.

        Raises:
            DataError: The input cannot be read, or not again.
        """
        return self.predictor.write(self.source, self.prediction, Path(folder), advance)

    def to_dict(self) -> dict[str, Any]:
        """Return the input and what was found in it, by names of classes, or the error: plain values for a JSON."""
        found = {"error": str(self.error)} if self.error is not None else self.found.summary(self.classes)
        return {"input": self.input, **found}

    def describe(self, alone: bool = True) -> str:
        """Return it as a table, or as a line if it is one of several; nothing where a picture says more.

        Raises:
            DataError: The input cannot be read.
        """
        return self.predictor.describe(self.source, self.prediction, alone)


class Predictor:
    """Reads inputs, prepares them as the test split does, and predicts. `densevit.load` makes one.

    A task whose files need more derives from it and names that in `DenseDataset.predictor`.

    Args:
        model: A trained model.
        transforms: Of the test split.
        classes: Names of the classes.
        palette: An (R, G, B) for each class.
        device: Where to run; by default the GPU if there is one.
        reader: Reads a file, or what `accept` returns; by default an image.
        picture: Draws what was read, see `DenseDataset.picture`.
        suffixes: Ends of the names of files that folders are searched for.

    Attributes:
        folders: What `write` writes to.
        picture_suffix: Of the files of pictures.
        dataset: Config of the dataset of the test split, from `densevit.load`.
    """

    folders: tuple[str, ...] = ("overlays", "outputs")
    picture_suffix: str = ".jpg"
    dataset: Mapping[str, Any]

    def __init__(
        self,
        model: DenseModel,
        transforms: v2.Transform,
        classes: Sequence[str],
        palette: Sequence[Sequence[int]],
        device: str | torch.device | None = None,
        reader: Callable[[Any], Tensor] = read_image,
        picture: Callable[[Tensor], np.ndarray] = DenseDataset.picture,
        suffixes: tuple[str, ...] = IMAGE_SUFFIXES,
    ) -> None:
        self.reader, self.picture, self.suffixes = reader, picture, suffixes
        self.model = model.to(choose_device(device)).eval()
        self.transforms, self.classes, self.palette = transforms, list(classes), palette

    def __call__(self, inputs: Any, batch_size: int = 1, progress: bool = True) -> Any:
        """Predict one input, or several.

        Args:
            inputs: The path of a file; an array or tensor, ``(H, W, 3)`` uint8 RGB of an image, ``(T, H, W, 3)`` of a
                clip, ``(D, H, W)`` of a volume with voxels of 1 mm; a picture of Pillow; a volume of nibabel. Several
                are a list of these, a folder, which is searched with all below it, or a glob such as "scans/*.png".
            batch_size: How many are run at once, if they have one size.
            progress: Show how far it is, of several inputs and on a terminal.

        Returns:
            The `Result` of one input; of several, the list of theirs, in order.

        Raises:
            DataError: The one input cannot be read. Of several, such a file is left to `Result.error`, and raised by
                what is asked of that result. Names of no file, and arrays that are no input, are raised in any case.
        """
        sources = self.find(inputs)
        if is_single(inputs):
            (result,) = self.stream(sources)
            if result.error is not None:
                raise result.error
            return result
        console = Console(stderr=True)
        watched = progress and (console.is_terminal or console.is_jupyter)
        with Progress(console=console, transient=True, disable=not watched) as bar:
            task = bar.add_task("predicting", total=len(sources))
            return list(self.stream(sources, batch_size, lambda share: bar.advance(task, share)))

    def find(self, inputs: Any) -> list[Source]:
        """Return the inputs that are meant by what the predictor is called with.

        Raises:
            DataError: A path or pattern names nothing, or something in memory is no input.
        """
        return find_sources(inputs, self.suffixes, self.accept)

    @torch.inference_mode()
    def stream(self, sources: Sequence[Source], batch_size: int = 1, advance: Advance = unwatched) -> Iterator[Result]:
        """Yield the result of each input of `find`, as soon as there is one; none is kept.

        Raises:
            ConfigError: ``batch_size`` is not positive.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size must be positive, not {batch_size}")
        for start in range(0, len(sources), batch_size):
            chunk = sources[start : start + batch_size]
            samples: dict[int, Sample] = {}
            errors: dict[int, DataError] = {}
            for i, source in enumerate(chunk):
                try:
                    samples[i] = self.sample(self.read(source), str(source))
                except DataError as error:
                    errors[i] = error
            predictions = dict(zip(samples, self.model.test_step(list(samples.values())), strict=True))
            for i, source in enumerate(chunk):
                advance(1)
                found = self.complete(predictions[i], source) if i in predictions else None
                yield Result(source, self, found, errors.get(i))

    def accept(self, value: Any, name: str) -> Any:
        """Return an input in memory as the reader takes it.

        Raises:
            DataError: It is no input of this model.
        """
        return image_array(value, name)

    def read(self, source: Source) -> Tensor:
        """Return an input as decoded.

        Raises:
            DataError: It cannot be read.
        """
        return self.reader(source.value)

    def sample(self, image: Tensor, name: str) -> Sample:
        """Return what was read as the model takes it."""
        view = self.transforms(image)
        return Sample(view, None, Meta(name, space_of(image), space_of(view)))

    def complete(self, prediction: Any, source: Source) -> Any:
        """Return a prediction with what the head did not know of the input: nothing, but for some tasks."""
        return prediction

    def draw(self, source: Source, prediction: Any) -> np.ndarray:
        """Return the picture of a prediction, ``(H, W, 3)``, uint8 RGB."""
        return prediction.draw(self.draw_input(source), self.classes, self.palette)

    def draw_input(self, source: Source) -> np.ndarray:
        """Return what a prediction is drawn on, ``(H, W, 3)``, uint8 RGB."""
        return self.picture(self.read(source))

    def write(self, source: Source, prediction: Any, out: Path, advance: Advance = unwatched) -> dict[str, Path]:
        """Write picture and prediction, see `Result.save`."""
        overlay = out / "overlays" / f"{source.name}{self.picture_suffix}"
        mmcv.imwrite(mmcv.rgb2bgr(self.draw(source, prediction)), str(overlay))
        saved = prediction.save(out / "outputs" / source.name)
        advance(1)
        return {"overlay": overlay, "output": saved}

    def describe(self, source: Source, prediction: Any, alone: bool) -> str:
        """Return what is printed of a prediction: of classes a table, or a line if it is not alone; else nothing."""
        scores = prediction.summary(self.classes).get("scores")
        if scores is None:
            return ""
        rows = [(name, f"{score:.1%}") for name, score in scores.items()]
        if alone:
            return table(str(source), ("class", "probability"), rows)
        return f"{source}: {', '.join(' '.join(row) for row in rows)}"
