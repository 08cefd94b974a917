"""In every task bad samples are listed with the file at fault, and replaced by the same ones wherever they are met."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader

from densevit.data.batch import collate_batch
from densevit.data.demo import make_detection, make_segmentation
from densevit.data.file_hash import sha256_of
from densevit.data.motion import make_motion
from densevit.data.phantoms import make_phantoms
from densevit.engine.config import load_config
from densevit.engine.loader import build_loader

CONFIGS = Path(__file__).parents[2] / "configs/demo"
DEMOS = {
    "segmentation": (make_segmentation, "segformer_b0_shapes.py"),
    "detection": (make_detection, "mask_rcnn_mit_b0_shapes.py"),
    "video": (make_motion, "timesformer_motion.py"),
    "medical": (make_phantoms, "unetr_phantom.py"),
}
COUNT, LIMIT = 6, 3
# Of each task: patterns of the files at fault; numbers of bad samples, and of those that take their places.
FAULTS: dict[str, tuple[tuple[str, ...], dict[int, int]]] = {
    "classification": (("train/*/1.png", "train/*/5.png"), {1: 2, 5: 0}),
    "segmentation": (("images/training/*1.jpg", "annotations/training/*2.png"), {1: 3, 2: 3}),
    "detection": (("train/*1.jpg",), {1: 2}),
    "video": (("*/train*4.mp4", "*/train*5.mp4"), {4: 0, 5: 0}),
    "medical": (("imagesTr/training*0.nii.gz", "labelsTr/training*5.nii.gz"), {0: 1, 5: 1}),
}


def write_class_folders(root: Path) -> None:
    for number in range(COUNT):
        path = root / "train/disc" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((8, 8, 3), 20 * number, np.uint8))


def damage(root: Path, task: str) -> list[str]:
    """Cut the files at fault, and return their names."""
    names = []
    for pattern in FAULTS[task][0]:
        (path,) = root.glob(pattern)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
        names.append(str(path))
    return names


def dataset_of(task: str, root: Path, training: bool) -> Any:
    options: Any = {"type": "ImageFolderDataset", "split": "train", "transforms": []}
    if task in DEMOS:
        options = load_config(CONFIGS / DEMOS[task][1]).train_dataloader.dataset
        options.pop("cache", None)
    cfg = {"dataset": {**options, "data_root": str(root / task)}, "batch_size": 1}
    dataset = build_loader(cfg, seed=0, work_dir=root / f"run_{task}", training=training).dataset
    dataset.quarantine.limit = LIMIT  # type: ignore[attr-defined]
    return dataset


def read_all(root: Path, training: bool, workers: int = 0) -> dict[str, list[str]]:
    """Return the paths of what each task's dataset gives for its indices in order."""
    paths = {}
    for task in FAULTS:
        dataset = dataset_of(task, root, training)
        loader = DataLoader(dataset, 1, num_workers=workers, collate_fn=collate_batch)
        paths[task] = [sample.meta.path for batch in loader for sample in batch]
    return paths


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_class_folders(tmp_path / "classification")
    for task, (make, _) in DEMOS.items():
        make(tmp_path / task, train=COUNT, val=1)  # type: ignore[operator]
    return tmp_path


@pytest.mark.slow
def test_every_task_replaces_alike_in_all_processes_and_lists_the_file_at_fault_once(root: Path) -> None:
    whole = read_all(root, training=True)
    bad = {task: damage(root / task, task) for task in FAULTS}
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        first, second = (found.result() for found in [pool.submit(read_all, root, True, n) for n in (0, 2)])
    assert first == second
    for task, (_, replaced) in FAULTS.items():
        assert first[task] == [whole[task][replaced.get(i, i)] for i in range(COUNT)], task
        entries = [json.loads(line) for line in (root / f"run_{task}/bad_samples.jsonl").read_text().splitlines()]
        entries.sort(key=lambda entry: whole[task].index(entry["path"]))
        assert [entry["path"] for entry in entries] == [whole[task][i] for i in replaced], task
        assert [entry["replaced_by"] for entry in entries] == [whole[task][i] for i in replaced.values()], task
        for name, entry in zip(bad[task], entries, strict=True):
            assert name in entry["error"]
            assert {entry["path"]: entry["sha256"], **entry["others"]}[name] == sha256_of(name)

    for task, left in read_all(root, training=False).items():
        assert left == [path for i, path in enumerate(whole[task]) if i not in FAULTS[task][1]], task
