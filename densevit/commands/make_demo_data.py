"""Generate a small dataset in the layout of a real one.

densevit make-demo-data classification --root data/demo
densevit make-demo-data segmentation --root data/demo --train 320 --val 32
densevit make-demo-data detection --root data/demo
densevit make-demo-data video --root data/demo
densevit make-demo-data volume --root data/demo
"""

import argparse
from pathlib import Path

from densevit.data import motion, phantoms
from densevit.data.demo import (
    CLASSIFICATION_CLASSES,
    DETECTION_CLASSES,
    SEGMENTATION_CLASSES,
    make_classification,
    make_detection,
    make_segmentation,
)

MAKERS = {  # and how many are to train and to validate on
    "classification": (make_classification, CLASSIFICATION_CLASSES, "pictures", 2000, 200),
    "detection": (make_detection, DETECTION_CLASSES, "pictures", 320, 32),
    "segmentation": (make_segmentation, SEGMENTATION_CLASSES, "pictures", 320, 32),
    "video": (motion.make_motion, motion.CLASSES, "clips", 1280, 128),
    "volume": (phantoms.make_phantoms, phantoms.CLASSES, "volumes", 40, 8),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=MAKERS, help="what the data are for")
    parser.add_argument("--root", default="data/demo", help="the data go to ROOT/TASK (data/demo)")
    parser.add_argument(
        "--train", type=int, help="how many to train on (320 pictures, 2000 to classify, 1280 clips, 40 volumes)"
    )
    parser.add_argument(
        "--val", type=int, help="how many to validate on (32 pictures, 200 to classify, 128 clips, 8 volumes)"
    )
    parser.add_argument("--seed", type=int, default=0, help="other data by another one (0)")


def main(args: argparse.Namespace) -> None:

    folder = Path(args.root, args.task)
    make, classes, things, train, val = MAKERS[args.task]
    train, val = (default if n is None else n for n, default in ((args.train, train), (args.val, val)))
    make(folder, train, val, args.seed)
    print(f"{train} + {val} {things} in {folder}, classes {', '.join(classes)}")
