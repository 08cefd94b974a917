"""Generate a small dataset in the layout of a real one.

python tools/make_demo_data.py segmentation --root data/demo --train 320 --val 32
"""

import argparse
from pathlib import Path

from densevit.cli import run
from densevit.data.demo import SEGMENTATION_CLASSES, make_segmentation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["segmentation"])
    parser.add_argument("--root", default="data/demo", help="the data go to ROOT/TASK (data/demo)")
    parser.add_argument("--train", type=int, default=320, help="pictures to train on (320)")
    parser.add_argument("--val", type=int, default=32, help="pictures to validate on (32)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    folder = Path(args.root, args.task)
    make_segmentation(folder, args.train, args.val, args.seed)
    print(f"{args.train} + {args.val} pictures in {folder}, classes {', '.join(SEGMENTATION_CLASSES)}")


if __name__ == "__main__":
    run(main)
