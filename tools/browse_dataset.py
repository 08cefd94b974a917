"""Draw what the network is shown: samples before and after augmentation, with their labels.

python tools/browse_dataset.py configs/segformer_b0_ade20k.py --split train --count 16 --out sheet.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from densevit.cli import add_config_options, config_from, run
from densevit.data.dataset import DenseDataset, SampleKey
from densevit.data.transforms import resize_nearest
from densevit.engine.report import side_by_side
from densevit.errors import ConfigError
from densevit.registry import DATASETS
from densevit.tasks.segmentation.prediction import overlay

COLUMNS, PANEL_HEIGHT, LINE = 2, 180, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_options(parser)
    parser.add_argument("--split", choices=("train", "val", "test"), default="train")
    parser.add_argument("--count", type=int, default=16, help="samples, evenly spaced over the split (16)")
    parser.add_argument("--epoch", type=int, default=0, help="whose augmentation is shown (0)")
    parser.add_argument("--out", default="sheet.png", help="picture to write (sheet.png)")
    args = parser.parse_args()

    cfg = config_from(args)
    loader = cfg.get(f"{args.split}_dataloader")
    if loader is None or args.count < 1:
        raise ConfigError(f"{args.config} has no {args.split}_dataloader" if loader is None else "--count is below 1")
    dataset: DenseDataset = DATASETS.build(loader.dataset)
    dataset.seed = cfg.get("randomness", {}).get("seed") or 0
    indices = np.unique(np.linspace(0, len(dataset) - 1, args.count).astype(int))
    cells, shown = [], set()
    for index in indices:
        panels, classes = draw_sample(dataset, SampleKey(int(index), args.epoch))
        cells.append(side_by_side(panels))
        shown |= classes
    picture = sheet(cells, [(dataset.classes[i], dataset.palette[i]) for i in sorted(shown)])
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    picture.save(args.out)
    print(f"{len(cells)} of {len(dataset)} samples in {args.out}")


def draw_sample(dataset: DenseDataset, key: SampleKey) -> tuple[dict[str, np.ndarray], set[int]]:
    """Return captioned pictures of equal height, and the classes of the augmented mask."""
    original, target, path = dataset.read(key.index)
    sample = dataset[key]
    assert sample is not None, "without a quarantine nothing is left out"
    panels = {Path(path).name: (original, target.mask), "as the network sees it": (sample.image, None)}
    panels["its labels"] = (sample.image, sample.target.mask)
    pictures = {caption: draw(image, mask, dataset.palette) for caption, (image, mask) in panels.items()}
    return pictures, {i for i in sample.target.mask.unique().tolist() if 0 <= i < len(dataset.classes)}


def draw(image: torch.Tensor, mask: torch.Tensor | None, palette: Sequence[tuple[int, int, int]]) -> np.ndarray:
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    if mask is not None:  # a test-time resize leaves the mask as it was
        pixels = overlay(pixels, resize_nearest(mask, image.shape[1:]).numpy(), palette)
    width = max(1, round(pixels.shape[1] * PANEL_HEIGHT / pixels.shape[0]))
    return np.asarray(Image.fromarray(pixels).resize((width, PANEL_HEIGHT)))


def sheet(cells: Sequence[Image.Image], legend: Sequence[tuple[str, tuple[int, int, int]]]) -> Image.Image:
    """Put the cells in columns, and below them a patch of colour for each class that occurs."""
    width, height = max(cell.width for cell in cells), max(cell.height for cell in cells)
    columns = min(COLUMNS, len(cells))
    top = -(-len(cells) // columns) * height
    font = ImageFont.load_default(14)
    places, x, y = [], 8, top + 8
    for name, colour in legend:
        step = 32 + round(font.getlength(name))
        if x + step > columns * width:
            x, y = 8, y + LINE
        places.append((x, y, name, tuple(colour)))
        x += step
    picture = Image.new("RGB", (columns * width, y + LINE + 8), "white")
    for i, cell in enumerate(cells):
        picture.paste(cell, (i % columns * width, i // columns * height))
    pen = ImageDraw.Draw(picture)
    for x, y, name, colour in places:
        pen.rectangle((x, y, x + 12, y + 14), fill=colour)
        pen.text((x + 17, y - 2), name, fill="black", font=font)
    return picture


if __name__ == "__main__":
    run(main)
