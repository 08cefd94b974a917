"""Draw what the network is shown: samples before and after augmentation, with their labels.

densevit browse-data segformer_b0_ade20k --split train --count 16 --out sheet.png
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torchvision.tv_tensors import BoundingBoxes

from densevit.cli import add_config_options, config_from
from densevit.data.dataset import DenseDataset, SampleKey
from densevit.data.panels import side_by_side
from densevit.errors import ConfigError
from densevit.registry import DATASETS
from densevit.structures import BoxTarget, VolumeTarget

COLUMNS, WIDEST = 2, 3000  # of a sheet, in pixels
PANEL_HEIGHT, VOLUME_HEIGHT = 180, 500


def add_options(parser: argparse.ArgumentParser) -> None:
    add_config_options(parser)
    parser.add_argument("--split", choices=("train", "val", "test"), default="train", help="whose samples (train)")
    parser.add_argument("--count", type=int, default=16, help="samples, evenly spaced over the split (16)")
    parser.add_argument("--epoch", type=int, default=0, help="whose augmentation is shown (0)")
    parser.add_argument("--out", default="sheet.png", help="picture to write (sheet.png)")


def main(args: argparse.Namespace) -> None:

    cfg = config_from(args)
    loader = cfg.get(f"{args.split}_dataloader")
    if loader is None or args.count < 1:
        raise ConfigError(f"{args.config} has no {args.split}_dataloader" if loader is None else "--count is below 1")
    dataset: DenseDataset = DATASETS.build(loader.dataset)
    dataset.seed = cfg.get("randomness", {}).get("seed") or 0
    indices = np.unique(np.linspace(0, len(dataset) - 1, args.count).astype(int))
    cells = [side_by_side(draw_sample(dataset, SampleKey(int(index), args.epoch))) for index in indices]
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    sheet(cells).save(args.out)
    print(f"{len(cells)} of {len(dataset)} samples in {args.out}")


def draw_sample(dataset: DenseDataset, key: SampleKey) -> dict[str, np.ndarray]:
    """Return captioned pictures of one sample as it was read and as the network sees it."""
    original, target, path = dataset.read(key.index)
    sample = dataset[key]
    assert sample is not None, "without a quarantine nothing is left out"

    height = VOLUME_HEIGHT if isinstance(target, VolumeTarget) else PANEL_HEIGHT

    def labelled(image: np.ndarray, target: Any) -> np.ndarray:
        if target is None:
            return image
        return dataset.prediction.draw_truth(image, target, dataset.classes, dataset.palette)

    picture, truth = dataset.seen(sample)
    seen = panel(picture, height)
    if isinstance(truth, BoxTarget):  # whose boxes are plain by now: drawing them at another size takes their own
        boxes = BoundingBoxes(truth.boxes, format="XYXY", canvas_size=sample.meta.input_size)
        truth = dataclasses.replace(truth, boxes=boxes)
    return {
        Path(path).name: labelled(panel(dataset.picture(original), height), target),
        "as the network sees it": seen,
        "its labels": labelled(seen, truth),
    }


def panel(image: np.ndarray, height: int) -> np.ndarray:
    """Return the image ``(H, W, 3)`` at a height."""
    pixels = Image.fromarray(image)
    width = max(1, round(pixels.width * height / pixels.height))
    return np.asarray(pixels.resize((width, height)))


def sheet(cells: Sequence[Image.Image]) -> Image.Image:
    """Put the cells in columns, wide ones in a single one."""
    width, height = max(cell.width for cell in cells), max(cell.height for cell in cells)
    columns = min(COLUMNS, len(cells), max(1, WIDEST // width))
    picture = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height), "white")
    for i, cell in enumerate(cells):
        picture.paste(cell, (i % columns * width, i // columns * height))
    return picture
