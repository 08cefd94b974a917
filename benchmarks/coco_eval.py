"""CocoMetric of densevit against pycocotools: the same objects and predictions, average precision of boxes.

    python benchmarks/coco_eval.py [--images 2500] [--found 100] [--repeats 1] [--out FILE.md]

Ours begins with the predictions as a detector gives them (`process` and `evaluate`), pycocotools with the list of
dicts that it loads (`loadRes`, `evaluate`, `accumulate`, `summarize`). A time is the median of runs of both in turn.
Memory is the peak beyond that of the built data, each measured in a process of its own.
"""

import argparse
import contextlib
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import MMLogger
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from timing import Step, alternate, machine, markdown, process_memory

from densevit.structures import BoxTarget, Meta, Sample
from densevit.tasks.detection.metric import CocoMetric
from densevit.tasks.detection.prediction import DetPrediction, xywh

CLASSES, OBJECTS, SIZE = 80, 7, (480, 640)
SIDES = ("ours", "pycocotools")
Pair = tuple[Sample, DetPrediction]


def main() -> None:
    """Measure and print."""
    args = parse_args()
    MMLogger.get_instance("benchmark", log_level="ERROR")  # the table of classes is not measured
    data = make_data(args.images, args.found)
    steps: list[Step] = [ours(data), theirs(data)]
    if args.probe:
        print(peak_memory(steps[SIDES.index(args.probe)]))
        return
    assert np.abs(np.subtract(ours(data)(), theirs(data)()[:6])).max() < 1e-9, "both sides compute the same"
    seconds = alternate(steps, args.repeats, "cpu")
    rows = [
        ("", "ours s", "pycocotools s", "speed-up", "ours MB", "pycocotools MB"),
        (
            f"{args.images * args.found} found in {args.images} images",
            *(f"{s:.1f}" for s in seconds),
            f"{seconds[1] / seconds[0]:.1f}x",
            *(f"{probe(side, args):.0f}" for side in SIDES),
        ),
    ]
    text = f"{machine('cpu')}\n\n{markdown(rows)}\n"
    print(text, end="")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=2500)
    parser.add_argument("--found", type=int, default=100, help="predictions per image")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    parser.add_argument("--probe", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


def make_data(images: int, found: int) -> list[Pair]:
    """Return objects at random places, and predictions around them, most of them of the right class."""
    rng = np.random.default_rng(0)
    return [make_pair(rng, index, found) for index in range(images)]


def make_pair(rng: np.random.Generator, image_id: int, found: int) -> Pair:
    """Return one image."""
    count = int(rng.integers(1, 2 * OBJECTS))
    start = rng.random((count, 2)) * 350
    boxes = np.concatenate([start, start + 5 + 120 * rng.random((count, 2))], axis=1).astype(np.float32)
    labels = rng.integers(0, CLASSES, count)
    of = rng.integers(0, count, found)
    moved = np.sort((boxes[of] + rng.normal(0, 8, (found, 4))).reshape(found, 2, 2), axis=1).reshape(found, 4)
    guess = np.where(rng.random(found) < 0.7, labels[of], rng.integers(0, CLASSES, found))
    target = BoxTarget(
        boxes=torch.from_numpy(boxes),
        labels=torch.from_numpy(labels),
        crowd=torch.from_numpy(rng.random(count) < 0.02),
        area=torch.from_numpy((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)),
        masks=None,
        image_id=torch.tensor(image_id),
    )
    scores = torch.from_numpy(np.sort(rng.random(found, dtype=np.float32))[::-1].copy())
    prediction = DetPrediction(torch.from_numpy(moved).float(), scores, torch.from_numpy(guess), SIZE)
    return Sample(torch.zeros(3, 1, 1, dtype=torch.uint8), target, Meta(str(image_id), SIZE, SIZE)), prediction


def ours(data: list[Pair]) -> Step:
    """Return what is timed: from predictions to the six numbers of average precision."""

    def run() -> list[float]:
        metric = CocoMetric()
        metric.dataset_meta = {"classes": [str(i) for i in range(CLASSES)]}
        for sample, prediction in data:
            metric.process([sample], [prediction])
        return list(metric.evaluate(len(data)).values())[:6]

    return run


def theirs(data: list[Pair]) -> Step:
    """Return what is timed of pycocotools."""
    truth, found = [], []
    for sample, prediction in data:
        target = sample.target
        columns = xywh(target.boxes).tolist(), target.labels.tolist(), target.area.tolist(), target.crowd.int().tolist()
        for box, label, area, crowd in zip(*columns, strict=True):
            entry = {"id": len(truth) + 1, "image_id": int(target.image_id), "category_id": label}
            truth.append({**entry, "bbox": box, "area": area, "iscrowd": crowd})
        columns = xywh(prediction.boxes).tolist(), prediction.labels.tolist(), prediction.scores.tolist()
        for box, label, score in zip(*columns, strict=True):
            found.append({"image_id": int(target.image_id), "category_id": label, "bbox": box, "score": score})
    images: list[dict[str, Any]] = [{"id": int(s.target.image_id)} for s, _ in data]
    api = COCO()
    api.dataset = {"images": images, "annotations": truth, "categories": [{"id": i} for i in range(CLASSES)]}

    def run() -> list[float]:
        with contextlib.redirect_stdout(io.StringIO()):
            api.createIndex()
            evaluation = COCOeval(api, api.loadRes([dict(entry) for entry in found]), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return list(evaluation.stats)

    return run


def peak_memory(step: Step) -> float:
    """Return the peak of one run beyond the built data, in MB."""
    before = process_memory("VmRSS")
    step()
    return (process_memory("VmHWM") - before) / 2**20


def probe(side: str, args: argparse.Namespace) -> float:
    """Return `peak_memory` as measured in a fresh process."""
    command = [sys.executable, __file__, "--images", str(args.images), "--found", str(args.found), "--probe", side]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
