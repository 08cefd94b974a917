"""One prediction for the page: how long it took, and what is wrong with a file that cannot be used."""

import copy
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from densevit.errors import DataError
from densevit.predictor import Advance, Predictor, Result, unwatched


class Found:
    """What was predicted for one file. Its folder is removed when nothing refers to it any more.

    Args:
        result: The prediction.
        seconds: That each step took, by name.

    Attributes:
        folder: For files made of it.
        view: What the page shows of it.
    """

    def __init__(self, result: Result, seconds: dict[str, float]) -> None:
        self.result, self.seconds = result, seconds
        self.folder = Path(tempfile.mkdtemp(prefix="found_"))
        self.view: Any = None
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def draw(self, view: Callable[[], Any]) -> None:
        """Set what is shown, and note how long it took."""
        start = time.perf_counter()
        self.view = view()
        self.seconds["drawing"] = time.perf_counter() - start

    def output(self) -> Path:
        """Write the prediction to a file named after the input, and return its path."""
        return self.result.prediction.save(self.folder / "output" / self.result.source.name)

    def times(self) -> str:
        """Return how long each step took, as a line."""
        return " · ".join(f"{name} {duration(seconds)}" for name, seconds in self.seconds.items())


def predict(predictor: Predictor, path: Path, advance: Advance = unwatched) -> Found:
    """Predict one file.

    Args:
        predictor: The model.
        path: The file.
        advance: Is told the share that was just done.

    Raises:
        DataError: The file cannot be read, or memory does not suffice.
    """
    seconds = {"reading": 0.0, "model": 0.0}
    timed = copy.copy(predictor)
    timed.reader = _timed(predictor.reader, seconds)
    with naming_upload(path):
        start = time.perf_counter()
        (result,) = timed.stream(timed.find(path), advance=advance)
        seconds["model"] = time.perf_counter() - start - seconds["reading"]
        if result.error is not None:
            raise result.error
    if not seconds["reading"]:  # frames were decoded while the model ran
        seconds = {"reading and model": seconds["model"]}
    return Found(Result(result.source, predictor, result.found), seconds)


@contextmanager
def naming_upload(path: Path) -> Iterator[None]:
    """Name a file, in the `DataError` that is raised of it, as its sender does: without our folder."""
    try:
        yield
    except DataError as error:
        raise DataError(str(error).replace(str(path), path.name)) from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise DataError(f"{path.name}: memory does not suffice for it; make it smaller") from error


def duration(seconds: float) -> str:
    """Return a time as people read it."""
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _timed(reader: Callable[[Any], Any], seconds: dict[str, float]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        start = time.perf_counter()
        image = reader(value)
        seconds["reading"] += time.perf_counter() - start
        return image

    return read
