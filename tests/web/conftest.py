"""Runs of very small models with random weights, one for each task, and inputs for them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import densevit
from densevit.data.motion import FPS, draw_clip
from densevit.data.phantoms import draw_phantom
from densevit.data.scenes import draw_scene
from densevit.data.video_writing import write_video
from densevit.engine.checkpoint import save_checkpoint
from densevit.engine.config import load_config
from densevit.engine.plain_config import to_plain
from densevit.palette import distinct_colours
from densevit.predictor import Predictor
from densevit.registry import MODELS

MIT = {"type": "MiT", "dims": (8, 16, 16, 24), "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 3)}
CONFIGS = {
    "classification": "cmt_ti_cifar10",
    "segmentation": "demo/segformer_b0_shapes",
    "detection": "demo/mask_rcnn_mit_b0_shapes",
    "video": "demo/timesformer_motion",
    "volume": "demo/unetr_phantom",
}


def write_run(folder: Path, task: str) -> Path:
    """Write the run of a task, and return it."""
    cfg = load_config(CONFIGS[task])
    if task in ("classification", "segmentation", "detection"):
        cfg.model.backbone = {**MIT, "token": True} if task == "classification" else dict(MIT)
    torch.manual_seed(0)
    model: Any = MODELS.build(cfg.model)
    classes = [f"<{task}> {i}" for i in range(model.head.num_classes)]  # a name that HTML must not take for a tag
    named = {"classes": classes, "palette": distinct_colours(len(classes))}
    meta = {"iter": 1, "epoch": 0, "config": to_plain(cfg), "dataset": named}
    path = folder / task / "iter_1.pth"
    path.parent.mkdir(parents=True)
    save_checkpoint({"meta": meta, "state_dict": model.state_dict()}, path)
    return path.parent


@pytest.fixture
def predictor_of(tmp_path: Path) -> Callable[[str], Predictor]:
    def load(task: str) -> Predictor:
        """Return the predictor of a task."""
        return densevit.load(write_run(tmp_path / "runs", task), device="cpu")

    return load


def write_input(folder: Path, task: str) -> Path:
    """Write an input of a task, and return its path; a video is longer than a clip."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    if task == "video":
        path = folder / "mine.mp4"
        write_video(path, np.concatenate([draw_clip(rng, 0), draw_clip(rng, 1)]), FPS)
    elif task == "volume":
        path = folder / "mine.nii.gz"
        draw_phantom(rng)[0].to_filename(path)
    else:
        path = folder / "mine.png"
        Image.fromarray(draw_scene(rng).image).save(path)
    return path


@pytest.fixture
def input_of(tmp_path: Path) -> Callable[[str], Path]:
    return lambda task: write_input(tmp_path / "inputs", task)
