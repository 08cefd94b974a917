"""Plot loss, learning rate and validation metrics of one or several runs into one picture."""

import argparse
from pathlib import Path

from densevit.cli import run
from densevit.engine.curves import plot_curves, read_scalars


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work_dirs", nargs="+", type=Path, metavar="WORK_DIR")
    parser.add_argument("--out", type=Path, default=Path("curves.png"), help="default: %(default)s")
    args = parser.parse_args()
    plot_curves({folder.as_posix(): read_scalars(folder) for folder in args.work_dirs}, args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    run(main)
