"""Runs of a few steps: what is cut from a config before a command gets it."""

from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

STEPS, BATCH = 2, 2
SIDE = 128  # pixels, of the shorter side of large pictures
RESIZED = {"AlignedResize", "RandomRatioResize"}
CROPPED = {"RandomCategoryCrop", "RandomCrop"}


class Schedule(NamedTuple):
    """How long a run is as its config has it, and when it saves."""

    by_epoch: bool
    length: int
    interval: int

    def saves(self, unit: str, number: int) -> bool:
        """Whether it writes ``UNIT_NUMBER``."""
        if unit != ("epoch" if self.by_epoch else "iter"):
            return False
        return number == self.length or (0 < number < self.length and number % self.interval == 0)


def schedule_of(cfg: Config) -> Schedule | None:
    """Return the schedule of a config that trains."""
    train = cfg.get("train_cfg")
    if not train:
        return None
    by_epoch = train.get("by_epoch", True)
    saving = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    return Schedule(by_epoch, train["max_epochs" if by_epoch else "max_iters"], saving.get("interval", 1))


def shorten(cfg: Config) -> None:
    """Cut the steps, the batches and the size of pictures; what is learnt and computed stays what it is."""
    if train := cfg.get("train_cfg"):
        train.update({"max_epochs": 1} if train.get("by_epoch", True) else {"max_iters": STEPS})
        train["val_interval"] = 1 if train.get("by_epoch", True) else STEPS
        train.pop("val_begin", None)
        hooks = cfg.get("default_hooks") or {}
        if saving := hooks.get("checkpoint"):
            saving["interval"] = train["val_interval"]
        if Path(cfg.filename or "").parent.name != "demo":
            hooks.pop("report", None)  # which takes longer than such a run
    for split in ("train", "val", "test"):
        if loader := cfg.get(f"{split}_dataloader"):
            volumes = loader.dataset.type == "VolumeDataset"
            loader["batch_size"] = min(loader["batch_size"], 1 if volumes else BATCH)
            loader["num_workers"] = 0
            for key in ("prefetch_factor", "timeout", "multiprocessing_context", "multi_scale"):
                loader.pop(key, None)
            _shrink(loader.dataset.get("transforms", []))


def _shrink(transforms: list[Any]) -> None:
    """Make the pictures of segmentation and detection smaller."""
    for transform in transforms:
        if not isinstance(transform, dict):
            continue
        _shrink(transform.get("transforms", []))
        kind = transform.get("type")
        if kind in RESIZED and min(transform["scale"]) > SIDE:
            transform["scale"] = tuple(side * SIDE // min(transform["scale"]) for side in transform["scale"])
        elif kind in CROPPED and isinstance(transform["size"], list | tuple):
            transform["size"] = tuple(min(side, SIDE) for side in transform["size"])
        elif kind == "ShortSideResize" and "max_size" in transform:
            sizes = transform["sizes"] if isinstance(transform["sizes"], list | tuple) else (transform["sizes"],)
            transform.update(sizes=tuple(min(side, SIDE) for side in sizes), max_size=2 * SIDE)
        elif kind == "RandomSizeCrop":
            transform.update(min_size=SIDE // 2, max_size=SIDE)
