"""Export a trained model: densevit export CONFIG CHECKPOINT --out model.onnx.

The graph takes pixels and normalises them itself. What comes before and after is in FILE.json beside it, and in the
file; docs/export.md says what each task gives. examples/run_onnx.py runs ONNX files of images without this package.
"""

import argparse
from pathlib import Path

from densevit.cli import add_config_options, config_from
from densevit.errors import ConfigError


def add_options(parser: argparse.ArgumentParser) -> None:
    add_config_options(parser)
    parser.add_argument("checkpoint", help="of a run of ours, or its folder, or official weights")
    parser.add_argument("--format", choices=("onnx", "pt2"), help="by default what --out ends with")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="model.onnx, or model.pt2")
    size = "height width; of clips and volumes, frames or depth first. By default that of the config's test"
    parser.add_argument("--size", type=int, nargs="+", help=size)
    parser.add_argument("--static", action="store_true", help="one input of this size only; any size will do")


def main(args: argparse.Namespace) -> None:
    form = args.format or args.out.suffix.removeprefix(".")
    if form not in ("onnx", "pt2"):
        raise ConfigError(f"--out {args.out} ends with neither .onnx nor .pt2: give --format")

    cfg = config_from(args)
    from densevit.export.exporting import export
    from densevit.loading import checkpoint_of
    from densevit.tables import table

    made = export(cfg, checkpoint_of(args.checkpoint), args.out, form, args.size, args.static)
    folded = f"{made.folded} batch norms are folded into convolutions" if made.folded else ""
    shape = " x ".join(map(str, made.description["input"]["shape"]))
    print(f"{args.out}: image {shape} -> {', '.join(made.description['outputs'])}")
    print(f"{args.out.with_suffix('.json').name} says what they are" + (f"; {folded}" if folded else ""))
    names = ("input", "relative difference", "PyTorch (ms)", f"{form} (ms)")
    rows = [
        (" x ".join(map(str, r.shape)), f"{r.difference:.1e}", f"{1e3 * r.eager:.1f}", f"{1e3 * r.exported:.1f}")
        for r in made.rows
    ]
    print(table("compared with the model", names, rows))
