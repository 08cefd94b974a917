"""What tests share: a small real dataset with its config, calls of tools, several processes."""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

CLASSES = ("ground", "square", "disc")
TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # the models are small: more threads only wait for each other


class Attack:
    """Unpickled naively, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """Return the folder that an `attack` makes."""
    return tmp_path / "ran"


@pytest.fixture
def attack(ran: Path) -> object:
    """Return what shows, by the folder ``ran``, that it was unpickled naively."""
    return Attack(ran)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(tool: str, *arguments: object) -> int:
        """Run a tool in this process and return its exit code."""
        monkeypatch.setattr(sys, "argv", [f"{tool}.py", *map(str, arguments)])
        try:
            runpy.run_path(str(TOOLS / f"{tool}.py"), run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run


@pytest.fixture
def in_processes(tmp_path: Path) -> Callable[..., list[Any]]:
    def run(function: Callable[[int, int], Any], world_size: int) -> list[Any]:
        """Return what ``function(rank, world_size)`` gives in each of several processes joined by gloo."""
        with ExitStack() as stack:
            pools = [
                stack.enter_context(ProcessPoolExecutor(1, context, partial(join, rank=rank, world_size=world_size)))
                for rank in range(world_size)
            ]
            results = [pool.submit(function, rank, world_size) for rank, pool in enumerate(pools)]
            found = [result.result(timeout=250) for result in results]
            for pool in pools:
                pool.submit(torch.distributed.destroy_process_group)
        return found

    context = multiprocessing.get_context("spawn")
    join = partial(torch.distributed.init_process_group, "gloo", f"file://{tmp_path / 'store'}")
    return run


class Page(HTMLParser):
    """The text of a page and what its pictures say where they are not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text, self.alternatives = "", list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        assert tag not in ("script", "link", "iframe")
        assert not values.keys() & {"href", "srcset", "data", "background"}
        if tag == "img":
            assert values["src"].startswith("data:image/")
            self.alternatives.append(values["alt"])
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        assert self.open[-1:] != ["style"] or ("url(" not in data and "@import" not in data)
        self.text += data


@pytest.fixture
def parse_page() -> Callable[[str], Page]:
    def parse(html: str) -> Page:
        """Read a page, which must be well-formed and need nothing but itself."""
        page = Page()
        page.feed(html)
        page.close()
        assert page.open == []
        return page

    return parse


def write_scene(root: Path, split: str, index: int) -> None:
    """Write one 64 x 80 picture with a square and a disc, and its mask with ids 0 to 2."""
    rng = np.random.default_rng(index)
    image = rng.integers(0, 60, (64, 80, 3), dtype=np.uint8)
    mask = np.zeros((64, 80), np.uint8)
    x, y = (int(v) for v in rng.integers(0, 30, 2))
    mask[y : y + 24, x : x + 24] = 1
    cv2.circle(mask, (60, 20 + int(rng.integers(0, 20))), 14, 2, -1)
    image[mask == 1] += 150
    image[mask == 2, 0] += 180
    for folder, array, suffix in (("images", image, "jpg"), ("annotations", mask, "png")):
        path = root / folder / split / f"{index:03d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), array)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Return the root of 12 pictures to train on and 5 to validate."""
    root = tmp_path / "scenes"
    for index in range(12):
        write_scene(root, "train", index)
    for index in range(12, 17):
        write_scene(root, "val", index)
    return root


def _loader(scenes: Path, split: str, transforms: list[dict[str, Any]], batch_size: int) -> dict[str, Any]:
    dataset = {
        "type": "SegDataset",
        "data_root": str(scenes),
        "image_dir": f"images/{split}",
        "mask_dir": f"annotations/{split}",
        "classes": CLASSES,
        "transforms": transforms,
    }
    return {"batch_size": batch_size, "num_workers": 0, "dataset": dataset}


@pytest.fixture
def config(scenes: Path, tmp_path: Path) -> Config:
    """Return a config that trains a very small SegFormer, with dropout and drop-path, for 8 steps."""
    augment = [
        {"type": "RandomRatioResize", "scale": (80, 64), "ratio": (0.75, 1.5)},
        {"type": "RandomCategoryCrop", "size": (64, 64)},
        {"type": "RandomHorizontalFlip", "p": 0.5},
        {"type": "PhotometricDistortion"},
    ]
    resize = [{"type": "AlignedResize", "scale": (80, 64), "divisor": 32}]
    model = {
        "type": "DenseModel",
        "backbone": {
            "type": "MiT",
            "dims": (8, 16, 16, 24),
            "depths": (1, 1, 1, 1),
            "num_heads": (1, 2, 2, 3),
            "drop_path": 0.3,
        },
        "head": {"type": "SegFormerHead", "num_classes": 3, "channels": 16, "dropout": 0.2},
        "precision": "fp32",
    }
    return Config(
        {
            "default_scope": "densevit",
            "model": model,
            "train_dataloader": _loader(scenes, "train", augment, 4),
            "val_dataloader": _loader(scenes, "val", resize, 2),
            "test_dataloader": _loader(scenes, "val", resize, 2),
            "train_cfg": {"by_epoch": False, "max_iters": 8, "val_interval": 4},
            "val_cfg": {},
            "test_cfg": {},
            "val_evaluator": {"type": "MeanIoU"},
            "test_evaluator": {"type": "MeanIoU"},
            "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "AdamW", "lr": 1e-3}},
            "param_scheduler": [{"type": "PolyLR", "power": 1.0, "by_epoch": False, "begin": 0, "end": 8}],
            "default_hooks": {"checkpoint": {"type": "CheckpointHook", "interval": 2, "save_best": "mIoU"}},
            "log_processor": {"by_epoch": False},
            "randomness": {"seed": 3},
            "work_dir": str(tmp_path / "run"),
        }
    )
