"""Make of a checkpoint a folder for others: weights as safetensors, the whole config, a model card, a checksum.

densevit publish CONFIG work_dirs/segformer/iter_5000.pth --out published/segformer
"""

import argparse
from pathlib import Path

from densevit.cli import add_config_options, config_from


def add_options(parser: argparse.ArgumentParser) -> None:
    add_config_options(parser)
    parser.add_argument("checkpoint", type=Path, help="of a run of ours, or its folder, or official weights")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--name", help="of the model (that of the config)")


def main(args: argparse.Namespace) -> None:
    cfg = config_from(args)
    from densevit.loading import checkpoint_of  # slow to import: --help should not wait for it
    from densevit.publishing import publish

    checkpoint = checkpoint_of(args.checkpoint)
    done = publish(cfg, checkpoint, args.out, args.name or Path(args.config).stem)
    print(f"{done.weights}, SHA-256 {done.sha256}: gives the outputs of {checkpoint} bit for bit")
    for key, path in done.renamed.items():
        print(f"a path of this machine is not published: {key} is {path!r} in {args.out / 'config.py'}")
    print(f"read {args.out / 'README.md'} and fill in the licence before you share the folder")
