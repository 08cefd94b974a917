"""A disk that takes no more ends a run by a message, and no earlier checkpoint is lost."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from densevit.engine.checkpoint import find_fault, remove, save_checkpoint
from densevit.engine.runner import Runner
from densevit.errors import CheckpointError


class Failing:
    """Stands for a function that fails from its ``count``-th call for a path that ends in ``suffix``."""

    def __init__(self, function: Callable[..., Any], code: int, suffix: str, count: int = 1) -> None:
        self.function, self.code, self.suffix, self.left = function, code, suffix, count

    def __call__(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        if str(path).endswith(self.suffix):
            self.left -= 1
            if self.left <= 0:
                raise OSError(self.code, os.strerror(self.code), str(path))
        return self.function(path, *args, **kwargs)


def train(config: Config, work_dir: Path, resume: bool = False) -> dict[str, torch.Tensor]:
    config = config.copy()
    config.work_dir, config.resume, config.experiment_name = str(work_dir), resume, f"{work_dir.name}_{resume}"
    runner = Runner.from_cfg(config)
    runner.train()
    return runner.model.state_dict()


@pytest.mark.fault("full or read-only disk at a save, mended later", "stops, names the way out; resumed, the same bits")
@pytest.mark.parametrize(
    ("code", "file"),
    [
        (errno.ENOSPC, "iter_6.pth.tmp"),
        pytest.param(errno.ENOSPC, "checkpoints.json.tmp", marks=pytest.mark.slow),
        pytest.param(errno.EROFS, "iter_6.pth.tmp", marks=pytest.mark.slow),
        pytest.param(errno.EDQUOT, "iter_6.pth.tmp", marks=pytest.mark.slow),
        pytest.param(errno.EIO, "checkpoints.json.tmp", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_cannot_save_is_resumed_once_it_can(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, file: str
) -> None:
    straight = train(config, tmp_path / "straight")
    monkeypatch.setattr("builtins.open", Failing(open, code, file, count=4 if "json" in file else 1))
    with pytest.raises(CheckpointError) as stopped:
        train(config, tmp_path / "run")
    monkeypatch.undo()
    assert f"cannot write {tmp_path / 'run'}" in str(stopped.value)
    assert f"{os.strerror(code)}. Make room or choose another --work-dir, then go on with --resume" in str(
        stopped.value
    )
    assert "iter_4.pth, which is intact" in str(stopped.value)
    assert find_fault(tmp_path / "run" / "iter_4.pth") is None
    resumed = train(config, tmp_path / "run", resume=True)
    assert all(torch.equal(straight[key], value) for key, value in resumed.items())


@pytest.mark.fault("full disk as an old checkpoint is deleted", "stops, names the way out; nothing is lost")
def test_a_manifest_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"meta": {"iter": 1, "epoch": 0}, "state_dict": {"weight": torch.ones(3)}}
    for step in (1, 2):
        save_checkpoint({**state, "meta": {"iter": step, "epoch": 0}}, tmp_path / f"iter_{step}.pth")
    monkeypatch.setattr("builtins.open", Failing(open, errno.ENOSPC, "json.tmp"))
    with pytest.raises(CheckpointError, match=r"iter_1\.pth: No space left.*from .*iter_2\.pth"):
        remove(tmp_path / "iter_1.pth")
    monkeypatch.undo()
    assert find_fault(tmp_path / "iter_2.pth") is None


def refuse(path: Path, *args: Any, **kwargs: Any) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))


@pytest.mark.fault("work_dir that cannot be written", "refused at once, names the way out")
@pytest.mark.parametrize("how", ["below a file", "read-only"])
def test_a_work_dir_that_cannot_be_written_is_refused_at_once(
    config: Config,
    tmp_path: Path,
    call: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: str,
) -> None:
    config.dump(tmp_path / "tiny.py")
    (tmp_path / "file").touch()
    folder = tmp_path / ("file" if how == "below a file" else "") / "run"
    if how == "read-only":  # permissions would not keep root out
        monkeypatch.setattr(Path, "mkdir", refuse)
    assert call("train", tmp_path / "tiny.py", "--work-dir", folder) == 2
    reason = "Not a directory" if how == "below a file" else "Read-only file system"
    assert capsys.readouterr().err == f"error: cannot write to {folder}: {reason}. Choose another --work-dir\n"
