"""A trained model applied to files; every task predicts through it."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor
from torchvision.transforms import v2

from densevit.data.dataset import DenseDataset
from densevit.data.readers import IMAGE_SUFFIXES, read_image
from densevit.engine.checkpoint import load_model
from densevit.engine.checkpoint_meta import meta_of
from densevit.errors import DataError
from densevit.model import DenseModel
from densevit.palette import distinct_colours
from densevit.registry import DATASETS, MODELS
from densevit.structures import Meta, Sample, space_of
from densevit.tables import table

Advance = Callable[[float], object]  # is told the share of an input that was just done


def unwatched(share: float) -> None:
    """Do nothing: for predictions whose progress no one watches."""


class Predictor:
    """Reads files, prepares them as the test split does, and predicts.

    A task whose files need more derives from it and names that in `DenseDataset.predictor`.

    Args:
        model: A trained model.
        transforms: Of the test split.
        classes: Names of the classes.
        palette: An (R, G, B) for each class.
        device: Where to run; by default the GPU if there is one.
        read: Reads a file; by default an image.
        picture: Draws what was read, see `DenseDataset.picture`.

    Attributes:
        folders: What `write` writes to.
        picture_suffix: Of the files of pictures.
    """

    folders: tuple[str, ...] = ("overlays", "outputs")
    picture_suffix: str = ".jpg"

    def __init__(
        self,
        model: DenseModel,
        transforms: v2.Transform,
        classes: Sequence[str],
        palette: Sequence[Sequence[int]],
        device: str | None = None,
        read: Callable[[Path], Tensor] = read_image,
        picture: Callable[[Tensor], np.ndarray] = DenseDataset.picture,
    ) -> None:
        self.read, self.picture = read, picture
        self.model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
        self.transforms, self.classes, self.palette = transforms, list(classes), palette

    @classmethod
    def from_config(cls, cfg: Config, checkpoint: str | Path, device: str | None = None) -> "Predictor":
        """Build the model of a config and load a checkpoint of a run or an official release into it.

        Returns:
            The predictor of the config's dataset.

        Raises:
            CheckpointError: The checkpoint is missing, corrupt, or does not cover the model.
        """
        options = {key: value for key, value in cfg.model.items() if key != "weights"}
        model: DenseModel = MODELS.build(options)
        meta = meta_of(load_model(model, Path(checkpoint)))
        named = meta.get("dataset") or {}
        if len(named.get("classes", ())) != model.head.num_classes:
            named = dataset_meta(cfg, model.head.num_classes)
        options = cfg.test_dataloader.dataset
        dataset_type: Any = DATASETS.get(options.type)
        read, picture = dataset_type.reader(options), dataset_type.picture
        transforms = dataset_type.preparation(options)
        kind = dataset_type.predictor or cls
        return kind(model, transforms, named["classes"], named["palette"], device, read, picture)

    @torch.inference_mode()
    def __call__(
        self, paths: Sequence[Path], batch_size: int = 1, advance: Advance = unwatched
    ) -> Iterator[tuple[Path, Any]]:
        """Yield each path with its prediction, or with the `DataError` that it gave."""
        for start in range(0, len(paths), batch_size):
            chunk = paths[start : start + batch_size]
            samples, errors = {}, {}
            for path in chunk:
                try:
                    samples[path] = self.sample(self.read(path), path)
                except DataError as error:
                    errors[path] = error
            predictions = dict(zip(samples, self.model.test_step(list(samples.values())), strict=True))
            for path in chunk:
                advance(1)
                yield path, predictions.get(path, errors.get(path))

    def write(self, path: Path, name: str, prediction: Any, out: Path, advance: Advance = unwatched) -> dict[str, Any]:
        """Write picture and prediction under ``name`` below ``out``; return the entry for the JSON.

        Raises:
            DataError: The file cannot be read again.
        """
        overlay = out / "overlays" / f"{name}{self.picture_suffix}"
        mmcv.imwrite(mmcv.rgb2bgr(self.draw(path, prediction)), str(overlay))
        saved = prediction.save(out / "outputs" / name)
        advance(1)
        return {
            "input": str(path),
            "overlay": str(overlay),
            "output": str(saved),
            **prediction.summary(self.classes),
        }

    def draw(self, path: Path, prediction: Any) -> np.ndarray:
        """Return the picture of a prediction, ``(H, W, 3)``, uint8 RGB."""
        return prediction.draw(self.draw_input(path), self.classes, self.palette)

    def draw_input(self, path: Path) -> np.ndarray:
        """Return what a prediction is drawn on, ``(H, W, 3)``, uint8 RGB."""
        return self.picture(self.read(path))

    def describe(self, path: Path, prediction: Any, alone: bool) -> str:
        """Return what is printed of a prediction: of classes a table, or a line if it is not alone; else nothing."""
        scores = prediction.summary(self.classes).get("scores")
        if scores is None:
            return ""
        rows = [(name, f"{score:.1%}") for name, score in scores.items()]
        if alone:
            return table(str(path), ("class", "probability"), rows)
        return f"{path}: {', '.join(' '.join(row) for row in rows)}"

    def sample(self, image: Tensor, path: Path) -> Sample:
        """Return what was read as the model takes it."""
        view = self.transforms(image)
        return Sample(view, None, Meta(str(path), space_of(image), space_of(view)))


def dataset_meta(cfg: Config, num_classes: int) -> dict[str, Any]:
    """Return classes and palette of the config's dataset without its files, for weights that carry none."""
    dataset = cfg.test_dataloader.dataset
    classes = dataset.get("classes") or getattr(DATASETS.get(dataset.type), "classes", None)
    names = list(classes or (f"class {i}" for i in range(num_classes)))
    return {"classes": names, "palette": distinct_colours(len(names))}


def find_files(inputs: Sequence[str], suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[Path]:
    """Return the files that paths, folders and glob patterns name, in order, each once; by default images.

    Raises:
        DataError: One of them names nothing.
    """
    found: list[Path] = []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            matches = sorted(p for p in path.rglob("*") if p.name.lower().endswith(suffixes))
        elif path.is_file():
            matches = [path]
        else:
            matches = sorted(p for p in Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
        if not matches:
            raise DataError(f"{text} is no file, no folder with any of {', '.join(suffixes)}, no glob")
        found += matches
    return list(dict.fromkeys(found))


def write_index(entries: list[dict[str, Any]], out: Path) -> Path:
    """Write ``predictions.json``."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "predictions.json"
    path.write_text(json.dumps(entries, indent=1))
    return path
