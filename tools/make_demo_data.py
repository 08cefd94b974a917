"""Generate a small dataset in the layout of a real one.

python tools/make_demo_data.py segmentation --root data/demo --train 320 --val 32
python tools/make_demo_data.py detection --root data/demo
"""

import argparse
from pathlib import Path

from densevit.cli import run
from densevit.data.demo import DETECTION_CLASSES, SEGMENTATION_CLASSES, make_detection, make_segmentation

MAKERS = {
    "detection": (make_detection, DETECTION_CLASSES),
    "segmentation": (make_segmentation, SEGMENTATION_CLASSES),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=MAKERS)
    parser.add_argument("--root", default="data/demo", help="the data go to ROOT/TASK (data/demo)")
    parser.add_argument("--train", type=int, default=320, help="pictures to train on (320)")
    parser.add_argument("--val", type=int, default=32, help="pictures to validate on (32)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    folder = Path(args.root, args.task)
    make, classes = MAKERS[args.task]
    make(folder, args.train, args.val, args.seed)
    print(f"{args.train} + {args.val} pictures in {folder}, classes {', '.join(classes)}")


if __name__ == "__main__":
    run(main)
