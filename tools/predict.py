"""Predict images: python tools/predict.py CONFIG CHECKPOINT IMAGE_OR_FOLDER_OR_GLOB ... --out DIR."""

import argparse
import sys
from pathlib import Path

from rich.progress import track

from densevit.cli import add_config_options, config_from, run, use_inference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_options(parser)
    parser.add_argument("checkpoint", help="of a run of ours, or official weights")
    parser.add_argument("inputs", nargs="+", help="images, folders, or quoted globs")
    parser.add_argument("--out", default="predictions", help="folder for overlays/, outputs/ and predictions.json")
    parser.add_argument("--device", help="cpu or cuda")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--tta", action="store_true", help="average over scales and the mirror image")
    parser.add_argument("--slide", action="store_true", help="sliding windows in place of the whole image")
    args = parser.parse_args()

    cfg = config_from(args)
    use_inference(cfg, args.slide, args.tta)

    from densevit.engine.writer import output_names
    from densevit.errors import DataError
    from densevit.predictor import Predictor, find_images, write_index

    paths, out = find_images(args.inputs), Path(args.out)
    names = dict(zip(paths, output_names([str(path) for path in paths]), strict=True))
    predictor = Predictor.from_config(cfg, args.checkpoint, args.device)
    entries = []
    for path, result in track(predictor(paths, args.batch_size), "predicting", len(paths)):
        if isinstance(result, DataError):
            entries.append({"input": str(path), "error": str(result)})
            print(f"skipped: {result}", file=sys.stderr)
        else:
            entries.append(predictor.write(path, names[path], result, out))
    index = write_index(entries, out)
    skipped = sum("error" in entry for entry in entries)
    print(f"{len(entries) - skipped} of {len(entries)} images predicted: overlays/, outputs/, {index.name} in {out}")
    if skipped:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
