"""Several processes on the CPU give what one gives."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

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


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.fixture
def path(config: Config, tmp_path: Path) -> Path:
    config.pop("work_dir")
    config.model.backbone.drop_path = config.model.head.dropout = 0.0
    config.train_dataloader.batch_size = 2
    config.dump(tmp_path / "tiny.py")
    return tmp_path / "tiny.py"


@pytest.mark.slow
def test_two_processes_train_resume_and_score_like_one(path: Path, tmp_path: Path) -> None:
    launch(2, "train", path, "--work-dir", tmp_path / "two")
    launch(2, "train", path, "--work-dir", tmp_path / "part")
    for name in ("iter_8.pth", "best_mIoU.pth"):
        (tmp_path / "part" / name).unlink()
    launch(2, "train", path, "--work-dir", tmp_path / "part", "--resume")
    straight, resumed = (weights(tmp_path / name / "iter_8.pth") for name in ("two", "part"))
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)

    scores = {}
    for processes in (1, 2, 3):
        folder = tmp_path / f"test{processes}"
        launch(processes, "test", path, tmp_path / "two" / "iter_8.pth", "--work-dir", folder)
        scores[processes] = json.loads(next(folder.glob("*/*.json")).read_text())
    for name in ("mIoU", "mAcc", "aAcc", "mDice"):
        assert scores[1][name] == scores[2][name] == scores[3][name]
