"""A trained model applied to files; every task predicts through it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from torchvision.transforms import v2

from densevit.data.readers import IMAGE_SUFFIXES, read_image
from densevit.data.transforms import build_transforms
from densevit.engine.checkpoint import load_model
from densevit.errors import DataError
from densevit.model import DenseModel
from densevit.palette import distinct_colours
from densevit.registry import DATASETS, MODELS
from densevit.structures import Meta, Sample


class Predictor:
    """Reads images, prepares them as the test split does, and predicts.

    Args:
        model: A trained model.
        transforms: Of the test split.
        classes: Names of the classes.
        palette: An (R, G, B) for each class.
        device: Where to run; by default the GPU if there is one.
    """

    def __init__(
        self,
        model: DenseModel,
        transforms: v2.Transform,
        classes: Sequence[str],
        palette: Sequence[Sequence[int]],
        device: str | None = None,
    ) -> None:
        self.model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
        self.transforms, self.classes, self.palette = transforms, list(classes), palette

    @classmethod
    def from_config(cls, cfg: Config, checkpoint: str | Path, device: str | None = None) -> "Predictor":
        """Build the model of a config and load a checkpoint of a run or an official release into it.

        Raises:
            CheckpointError: The checkpoint is missing, corrupt, or does not cover the model.
        """
        options = {key: value for key, value in cfg.model.items() if key != "weights"}
        model: DenseModel = MODELS.build(options)
        meta = load_model(model, Path(checkpoint)).get("meta", {})
        dataset = meta.get("dataset") or dataset_meta(cfg, model.head.num_classes)
        transforms = build_transforms(cfg.test_dataloader.dataset.transforms)
        return cls(model, transforms, dataset["classes"], dataset["palette"], device)

    @torch.inference_mode()
    def __call__(self, paths: Sequence[Path], batch_size: int = 1) -> Iterator[tuple[Path, Any]]:
        """Yield each path with its prediction, or with the `DataError` that it gave."""
        for start in range(0, len(paths), batch_size):
            chunk = paths[start : start + batch_size]
            samples, errors = {}, {}
            for path in chunk:
                try:
                    samples[path] = self._read(path)
                except DataError as error:
                    errors[path] = error
            predictions = dict(zip(samples, self.model.test_step(list(samples.values())), strict=True))
            yield from ((path, predictions.get(path, errors.get(path))) for path in chunk)

    def write(self, path: Path, name: str, prediction: Any, out: Path) -> dict[str, Any]:
        """Write picture and prediction under ``name`` below ``out``; return the entry for the JSON."""
        image = np.ascontiguousarray(read_image(path).permute(1, 2, 0))
        overlay = out / "overlays" / f"{name}.jpg"
        mmcv.imwrite(mmcv.rgb2bgr(prediction.draw(image, self.classes, self.palette)), str(overlay))
        saved = prediction.save(out / "outputs" / name)
        return {
            "input": str(path),
            "overlay": str(overlay),
            "output": str(saved),
            **prediction.summary(self.classes),
        }

    def _read(self, path: Path) -> Sample:
        image = read_image(path)
        view = self.transforms(image)
        return Sample(view, None, Meta(str(path), tuple(image.shape[1:]), tuple(view.shape[1:])))


def dataset_meta(cfg: Config, num_classes: int) -> dict[str, Any]:
    """Return classes and palette of the config's dataset without its files, for weights that carry none."""
    dataset = cfg.test_dataloader.dataset
    classes = dataset.get("classes") or getattr(DATASETS.get(dataset.type), "classes", None)
    names = list(classes or (f"class {i}" for i in range(num_classes)))
    return {"classes": names, "palette": distinct_colours(len(names))}


def find_images(inputs: Sequence[str]) -> list[Path]:
    """Return the images that files, folders and glob patterns name, in order, each once.

    Raises:
        DataError: One of them names nothing.
    """
    found: list[Path] = []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            matches = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        elif path.is_file():
            matches = [path]
        else:
            matches = sorted(p for p in Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
        if not matches:
            raise DataError(f"{text} is no image, no folder with images ({', '.join(IMAGE_SUFFIXES)}), no glob")
        found += matches
    return list(dict.fromkeys(found))


def write_index(entries: list[dict[str, Any]], out: Path) -> Path:
    """Write ``predictions.json``."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "predictions.json"
    path.write_text(json.dumps(entries, indent=1))
    return path
