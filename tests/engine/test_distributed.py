"""Several processes on the CPU give what one gives."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dist import barrier
from mmengine.hooks import Hook

from densevit.engine.manifest import read_manifest
from densevit.engine.runner import Runner
from densevit.errors import ConfigError
from densevit.weights import read_file

ROOT = Path(__file__).parents[2]


def launch(processes: int, tool: str, *arguments: object) -> None:
    """Run a tool under torchrun, or alone for a single process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}"]
    command = [sys.executable, *(torchrun if processes > 1 else []), ROOT / "tools" / f"{tool}.py", *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]


class Losses(Hook):
    def __init__(self) -> None:
        self.values: list[float] = []

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict[str, torch.Tensor] | None = None
    ) -> None:
        self.values.append((outputs or {})["loss"].item())


def train(path: Path, work_dir: Path, **changes: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Train a config in this process, as one of several if it has joined them; return its losses and the weights."""
    cfg = Config.fromfile(path)
    cfg.merge_from_dict({"work_dir": str(work_dir), "experiment_name": f"{work_dir.name}_{len(changes)}", **changes})
    cfg.launcher = "pytorch" if torch.distributed.is_initialized() else "none"
    runner, losses = Runner.from_cfg(cfg), Losses()
    runner.register_hook(losses)
    runner.train()
    return losses.values, {k: v.clone() for k, v in runner._bare_model().state_dict().items()}


def score(path: Path, checkpoint: Path) -> float:
    cfg = Config.fromfile(path)
    cfg.update({"load_from": str(checkpoint), "work_dir": str(checkpoint.parent / "test")})
    return Runner.from_cfg(cfg).test()["mIoU"]


def two_ways(batch_size: int) -> dict[str, dict[str, Any]]:
    """Return the changes for 4 updates without and with accumulated gradients."""
    accumulating = {"optim_wrapper.accumulative_counts": 2, "train_cfg.max_iters": 8}
    batch = {"train_dataloader.batch_size": batch_size}
    return {"plain": batch, "accumulating": {**batch, **accumulating}}


def _train_and_resume(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    found: dict[str, Any] = {
        name: train(folder / "equal.py", folder / name, **changes) for name, changes in two_ways(2).items()
    }
    found["straight"] = train(folder / "drawing.py", folder / "two")[1]
    train(folder / "drawing.py", folder / "part")
    barrier()
    if rank == 0:
        for name in ("iter_8.pth", "best_mIoU.pth"):
            (folder / "part" / name).unlink()
    barrier()
    found["resumed"] = train(folder / "drawing.py", folder / "part", resume=True)[1]
    return found


@pytest.fixture
def folder(config: Config, tmp_path: Path) -> Path:
    """Return where two configs are: one that draws, and one whose loss of a batch is the mean over its samples."""
    config.pop("work_dir")
    config.train_dataloader.batch_size = 2
    config.dump(tmp_path / "drawing.py")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for index in range(6):
            file = tmp_path / "data" / split / "ab"[index % 2] / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(file), rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    config.model.backbone.update(drop_path=0.0, token=True)
    config.model.head = {"type": "ClassificationHead", "num_classes": 2}
    flip = [{"type": "RandomHorizontalFlip", "p": 0.5}, {"type": "PhotometricDistortion"}]
    for split, transforms in (("train", flip), ("test", [])):
        dataset = {"type": "ImageFolderDataset", "data_root": str(tmp_path / "data"), "split": split}
        config[f"{split}_dataloader"].dataset = {**dataset, "transforms": transforms}
    config.val_dataloader = config.val_cfg = config.val_evaluator = None
    config.optim_wrapper.optimizer = {"type": "SGD", "lr": 0.1, "momentum": 0.9}
    config.param_scheduler = []
    config.train_cfg = {"by_epoch": False, "max_iters": 4}
    config.default_hooks.checkpoint = {"type": "CheckpointHook", "interval": 4}
    config.dump(tmp_path / "equal.py")
    return tmp_path


@pytest.mark.slow
def test_two_processes_train_like_one_of_twice_the_batch_and_resume_exactly(
    folder: Path, in_processes: Callable[..., list[Any]]
) -> None:
    first, second = in_processes(partial(_train_and_resume, folder=folder), 2)
    for key, weight in first["straight"].items():
        assert torch.equal(weight, first["resumed"][key]), key
    for name, changes in two_ways(4).items():
        losses, weights = train(folder / "equal.py", folder / f"one_{name}", **changes)
        both = [(a + b) / 2 for a, b in zip(first[name][0], second[name][0], strict=True)]
        assert both == pytest.approx(losses, rel=1e-5), name
        assert first[name][0] != pytest.approx(losses, rel=1e-5), "the processes see different samples"
        for key, weight in weights.items():
            torch.testing.assert_close(first[name][1][key], weight, rtol=1e-4, atol=1e-6)
            assert torch.equal(first[name][1][key], second[name][1][key])

    best = folder / "two" / "best_mIoU.pth"  # its score is that of what was saved, on all samples
    assert score(folder / "drawing.py", best) == read_manifest(folder / "two")[best.name]["score"]

    (folder / "two" / "iter_8.pth").unlink()  # and from step 6 on alone
    train(folder / "drawing.py", folder / "two", resume=True)
    log = max((folder / "two").glob("*/*.log")).read_text()
    assert "2 x 2 processes x 1 accumulated = 4 before, 2 x 1 processes x 1 accumulated = 2 now" in log
    assert "the data go on at sample 1 of pass 3; none is left out or seen again" in log
    meta = read_file(folder / "two" / "iter_8.pth")["meta"]
    assert (meta["world_size"], meta["data_epoch"], meta["data_seen"]) == (1, 2, 4)


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_scores(folder: Path) -> None:
    train(folder / "drawing.py", folder / "run")
    scores = {}
    for processes in (1, 2, 3):
        work_dir = folder / f"test{processes}"
        launch(processes, "test", folder / "drawing.py", folder / "run" / "iter_8.pth", "--work-dir", work_dir)
        scores[processes] = json.loads(next(work_dir.glob("*/*.json")).read_text())
    for name in ("mIoU", "mAcc", "aAcc", "mDice"):
        assert scores[1][name] == scores[2][name] == scores[3][name]


def test_synchronised_batch_norms_are_refused_without_gpus(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config.sync_bn = "torch"
    runner = Runner.from_cfg(config)
    monkeypatch.setattr(runner, "_distributed", True)
    with pytest.raises(ConfigError, match=r"sync_bn needs GPUs.*--cfg-options sync_bn=None"):
        runner.train()
