"""Predict images, videos or volumes: densevit predict CONFIG CHECKPOINT FILE_OR_FOLDER_OR_GLOB ... --out DIR."""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import Progress

from densevit.cli import add_config_options, config_from
from densevit.errors import ConfigError

SLIDE_HELP = """sliding windows in place of the whole image; of videos, one clip after the other: timelines/ has their
probabilities over time. A window is as long as a clip of the config's DenseSampling or, with SegmentSampling, which
sees whole videos, as four times its number of frames"""


def add_options(parser: argparse.ArgumentParser) -> None:
    add_config_options(parser)
    parser.add_argument("checkpoint", help="of a run of ours, or its folder, or official weights")
    parser.add_argument(
        "inputs",
        nargs="+",
        help="images or, for a config of clips, videos, of volumes, NIfTI; folders, or quoted globs",
    )
    parser.add_argument(
        "--out", default="predictions", help="folder for overlays/, outputs/, predictions.json; of videos also videos/"
    )
    parser.add_argument("--device", help="cpu or cuda")
    parser.add_argument("--batch-size", type=int, default=1, help="inputs at once, if they have one size (1)")
    parser.add_argument("--tta", action="store_true", help="average over scales and the mirror image; of clips, crops")
    parser.add_argument("--slide", action="store_true", help=SLIDE_HELP)
    parser.add_argument("--slide-window", type=float, metavar="SECONDS", help="length of the windows of a video")
    parser.add_argument(
        "--slide-stride", type=float, metavar="SECONDS", help="from one window of a video to the next (half a window)"
    )


def main(args: argparse.Namespace) -> None:
    if args.batch_size < 1:
        raise ConfigError("--batch-size must be positive")

    cfg = config_from(args)
    from densevit.inputs import find_files
    from densevit.loading import load
    from densevit.registry import DATASETS

    dataset: Any = DATASETS.get(cfg.test_dataloader.dataset.type)
    paths = find_files(args.inputs, dataset.suffixes)
    predictor = load(args.checkpoint, cfg, args.device, args.slide, args.tta, args.slide_window, args.slide_stride)
    predict(predictor, predictor.find(paths), Path(args.out), args.batch_size)


def predict(predictor: Any, sources: Sequence[Any], out: Path, batch_size: int) -> None:
    """Predict and write all inputs; exit with 1 if some of them cannot be read."""
    from densevit.errors import DataError

    entries: list[dict[str, Any]] = []
    with Progress() as progress:
        bar = progress.add_task("predicting", total=2 * len(sources))  # each is predicted, then written
        advance = partial(progress.advance, bar)
        for result in predictor.stream(sources, batch_size, advance):
            try:
                files = result.save(out, advance)
                entries.append({**result.to_dict(), **{kind: str(path) for kind, path in files.items()}})
                if text := result.describe(alone=len(sources) == 1):
                    print(text)
            except DataError as error:
                entries.append({"input": result.input, "error": str(error)})
                print(f"skipped: {error}", file=sys.stderr)
            progress.update(bar, completed=2 * len(entries))
    out.mkdir(parents=True, exist_ok=True)
    (out / "predictions.json").write_text(json.dumps(entries, indent=1))
    skipped = sum("error" in entry for entry in entries)
    folders = ", ".join(f"{folder}/" for folder in predictor.folders)
    print(f"{len(entries) - skipped} of {len(entries)} inputs predicted: {folders}, predictions.json in {out}")
    if skipped:
        sys.exit(1)
