"""Make the pictures of the tours and of own_data.md anew, from generated data: python docs/pictures/make.py.

Data and runs are made where they are missing, which takes a quarter of an hour on two cores; --runs names trained ones.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

import densevit
from densevit.commands import run

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
GAP = 8
LEGIBLE = 400  # pixels of the width of an input
SURE = 0.8  # score of objects that are drawn
MAX_BYTES = 140_000  # beyond, a picture is saved in 256 colours


class Task(NamedTuple):
    """What a tour shows: a config, how many of which inputs are predicted, in how many columns, how wide at most."""

    config: str
    inputs: str
    count: int
    columns: int
    width: int


TASKS = {
    "classification": Task("cct_2_3x2_objects", "classification/val/*/*.jpg", 4, 2, 900),
    "segmentation": Task("segformer_b0_shapes", "segmentation/images/validation/*.jpg", 4, 2, 900),
    "detection": Task("mask_rcnn_mit_b0_shapes", "detection/val/*.jpg", 4, 2, 640),
    "video": Task("timesformer_motion", "video/videos/val_*.mp4", 4, 2, 900),
    "volume": Task("unetr_phantom", "volume/imagesTr/validation_*.nii.gz", 1, 1, 900),
}


def main() -> None:
    """Make what --only names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*TASKS, "own_data"], default=[*TASKS, "own_data"])
    parser.add_argument("--runs", type=Path, default=Path("work_dirs"), help="folder of the runs (work_dirs)")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the pictures (this one)")
    parser.add_argument("--quick", action="store_true", help="few data and two steps, to try the script")
    args = parser.parse_args()
    for name in args.only:
        if name == "own_data":
            show_own_data(args.out, args.quick)
        else:
            show_task(name, args.runs, args.out, args.quick)


def show_task(name: str, runs: Path, out: Path, quick: bool) -> None:
    """Draw samples, and predictions for the validation data, of a demo."""
    task = TASKS[name]
    config, folder = f"demo/{task.config}", runs / task.config
    make_data(name, quick)
    show_samples(config, out / f"tour_{name}_data.png", task.width, count=1 if name == "volume" else 2)
    if not (folder / "checkpoints.json").exists():
        short = ["train_cfg.max_iters=2", "train_cfg.val_interval=2", "train_dataloader.batch_size=2"]
        call("train", config, "--work-dir", str(folder), *(["--cfg-options", *short] if quick else []))
    predictor = densevit.load(folder)
    files = sorted(Path("data/demo").glob(task.inputs))
    files = [files[i] for i in np.linspace(0, len(files) - 1, task.count).astype(int)]
    inputs = files if name in ("video", "volume") else [enlarged(file) for file in files]
    results = predictor(inputs, progress=False)
    draw = drawn_sure if name == "detection" else densevit.Result.plot
    pictures = [draw(result) for result in results]
    save(beside(pictures, task.columns), out / f"tour_{name}_found.png", task.width)
    if name == "segmentation":
        save(np.asarray(Image.open(folder / "curves.png").convert("RGB")), out / "tour_curves.png", 900)


def drawn_sure(result: densevit.Result) -> np.ndarray:
    """Draw the objects of which the detector is sure."""
    image = result.predictor.draw_input(result.source)
    return result.prediction.draw(image, result.classes, result.predictor.palette, min_score=SURE)


def enlarged(file: Path) -> Image.Image:
    """Return a picture as large as what is written onto it wants."""
    picture = Image.open(file)
    factor = max(1, -(-LEGIBLE // picture.width))
    return picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.BICUBIC)


def show_own_data(out: Path, quick: bool) -> None:
    """Draw samples of the dataset of examples/csv_dataset.py."""
    make_data("classification", quick)
    root = Path("data/demo/classification")
    for split in ("train", "val"):
        with (root / f"{split}.csv").open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["file", "label"])
            lines.writerows([p.relative_to(root), p.parent.name] for p in sorted(root.glob(f"{split}/*/*.jpg")))
    show_samples(str(EXAMPLES / "csv_config.py"), out / "own_data.png", 700)


def show_samples(config: str, path: Path, width: int, count: int = 2) -> None:
    """Draw samples as the network sees them, one below the other."""
    call("browse-data", config, "--count", str(count), "--out", str(path))
    sheet = np.asarray(Image.open(path).convert("RGB"))
    save(beside(np.split(sheet, count, axis=1), 1) if sheet.shape[1] > sheet.shape[0] else sheet, path, width)


def make_data(name: str, quick: bool) -> None:
    """Generate the data of a demo; what is there already stays."""
    call("make-demo-data", name, *(["--train", "10", "--val", "5"] if quick else []))


def call(name: str, *arguments: str) -> None:
    """Run a command of densevit in this process."""
    run(name, arguments, f"densevit {name}")


def beside(pictures: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Return pictures in rows, on white, each in a cell of the size of the largest."""
    height, width = (max(p.shape[axis] for p in pictures) + GAP for axis in (0, 1))
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // columns * height, i % columns * width
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


def save(pixels: np.ndarray, path: Path, width: int) -> None:
    """Write a picture, no wider than ``width``."""
    picture = Image.fromarray(pixels)
    if picture.width > width:
        picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {picture.width} x {picture.height}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
