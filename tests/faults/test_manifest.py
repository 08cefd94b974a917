"""The list of checkpoints may be lost, the checkpoints are not."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from densevit.engine import checkpoint, sharded_checkpoint
from densevit.engine.atomic_write import put_in_place
from densevit.engine.checkpoint import find_fault, find_latest, save_checkpoint
from densevit.engine.manifest import read_manifest, repair
from densevit.engine.runner import Runner
from densevit.engine.sharded_checkpoint import clean, save_folder
from densevit.errors import CheckpointError, ConfigError

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda text: text[: len(text) // 2],
    "empty": lambda text: b"",
    "zeros": lambda text: bytes(len(text)),
    "garbage": lambda text: bytes(range(256)),
    "nested": lambda text: b"[" * 100_000,
    "list": lambda text: b"[1, 2]",
    "number": lambda text: b"7",
    "no entries": lambda text: json.dumps(dict.fromkeys(json.loads(text))).encode(),
    "words for numbers": lambda text: text.replace(b'"iter": ', b'"iter": "", "was": '),
    "keys left out": lambda text: text.replace(b'"sha256"', b'"sha"'),
    "infinite score": lambda text: text.replace(b'"score": 0.5', b'"score": NaN'),
}


def state(step: int) -> dict[str, object]:
    return {"meta": {"iter": step, "epoch": 0}, "state_dict": {"weight": torch.full((9,), float(step))}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with checkpoints of the steps 2 and 4, and a best one of step 2."""
    for step in (2, 4):
        save_checkpoint(state(step), tmp_path / f"iter_{step}.pth")
    save_checkpoint(state(2), tmp_path / "best_mIoU.pth", score=0.5)
    return tmp_path


@pytest.mark.fault("damaged `checkpoints.json`", "said; the checkpoints are verified by reading them, none is lost")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_is_said_and_written_anew(folder: Path, damage: str) -> None:
    path, told = folder / "checkpoints.json", []
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole))
    assert read_manifest(folder).keys() <= {"iter_2.pth", "iter_4.pth"}
    repair(folder, told.append)
    assert f"{path} is damaged" in told[0]
    assert read_manifest(folder) == json.loads(whole)
    assert find_latest(folder, told.append) == folder / "iter_4.pth"


@pytest.mark.fault("missing `checkpoints.json`", "said; the checkpoints are verified by reading them, none is lost")
def test_a_missing_manifest_is_said_and_written_anew(folder: Path) -> None:
    whole, told = read_manifest(folder), []
    (folder / "checkpoints.json").unlink()
    repair(folder, told.append)
    assert "checkpoints.json is missing" in told[0]
    assert read_manifest(folder) == whole


@pytest.mark.fault("missing `checkpoints.json`, damaged checkpoint", "named and passed over")
@pytest.mark.parametrize("content", [b"", b"garbage", "half", {"weight": torch.ones(2)}, [1], {"meta": {"iter": "2"}}])
def test_without_a_manifest_what_is_no_checkpoint_is_passed_over(folder: Path, content: object) -> None:
    path, told = folder / "iter_4.pth", []
    if content == "half":
        content = path.read_bytes()[:600]
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    (folder / "checkpoints.json").unlink()
    repair(folder, told.append)
    assert any("iter_4.pth" in line and "passed over" in line for line in told)
    assert find_latest(folder, told.append) == folder / "iter_2.pth"
    assert path.exists()


def test_the_folder_of_a_split_model_is_entered_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_folder(state(4), folder / "best_mAcc", score=0.5)
    whole, told = read_manifest(folder), []
    (folder / "checkpoints.json").unlink()
    repair(folder, told.append)
    assert read_manifest(folder) == whole

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sharded_checkpoint, "enter", killed)
    with pytest.raises(KeyboardInterrupt):
        save_folder(state(6), folder / "best_mAcc", score=0.75)
    assert find_fault(folder / "best_mAcc") is None
    clean(folder)
    repair(folder, told.append)
    assert read_manifest(folder)["best_mAcc"]["iter"] == 6
    assert read_manifest(folder)["best_mAcc"]["score"] == 0.75


def test_of_a_damaged_manifest_the_steps_tell_the_order(folder: Path) -> None:
    path = folder / "checkpoints.json"
    entries = json.loads(path.read_text())
    path.write_text(json.dumps({**entries, "iter_2.pth": None}))
    repair(folder, [].append)
    assert find_latest(folder, pytest.fail) == folder / "iter_4.pth"


def test_a_manifest_cannot_have_files_deleted_elsewhere(folder: Path) -> None:
    entries = json.loads((folder / "checkpoints.json").read_text())
    (folder / "checkpoints.json").write_text(json.dumps({"../iter_1.pth": entries["iter_2.pth"], **entries}))
    assert read_manifest(folder) == entries


@pytest.mark.fault("killed between a checkpoint and its entry", "the new one is verified by reading it, and kept")
@pytest.mark.parametrize("name", ["iter_6.pth", "best_mIoU.pth"])
def test_a_checkpoint_whose_entry_was_not_written_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def killed(temporary: Path, path: Path) -> None:
        put_in_place(temporary, path)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "put_in_place", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(state(6), folder / name, score=0.75)
    monkeypatch.undo()
    assert find_fault(folder / name) is None
    repair(folder, [].append)
    entry = read_manifest(folder)[name]
    assert (entry["iter"], entry["score"]) == (6, 0.75)
    assert find_latest(folder, pytest.fail) == folder / ("iter_4.pth" if "best" in name else name)


@pytest.mark.fault("full disk while the best checkpoint is replaced", "the old one stays, with its score")
def test_a_best_checkpoint_that_cannot_be_replaced_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(temporary: Path, path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(CheckpointError, match=r"best_mIoU\.pth: No space left.*--resume from .*iter_4\.pth"):
        save_checkpoint(state(4), folder / "best_mIoU.pth", score=0.75)
    monkeypatch.undo()
    repair(folder, [].append)
    assert read_manifest(folder)["best_mIoU.pth"] == {**read_manifest(folder)["best_mIoU.pth"], "iter": 2, "score": 0.5}
    assert not list(folder.glob("*.tmp"))


def train(config: Config, name: str, resume: bool = False) -> dict[str, torch.Tensor]:
    config = config.copy()
    config.work_dir, config.resume = str(Path(config.work_dir).with_name(name)), resume
    runner = Runner.from_cfg(config)
    runner.train()
    return runner.model.state_dict()


@pytest.mark.fault("run resumed with a truncated `checkpoints.json`", "resumed, the same bits at the end")
def test_a_run_resumes_with_a_damaged_manifest(config: Config, tmp_path: Path) -> None:
    straight = train(config, "run")
    path = tmp_path / "run" / "checkpoints.json"
    path.write_bytes(path.read_bytes()[:-40])
    for name in ("iter_8.pth", "best_mIoU.pth"):
        (tmp_path / "run" / name).unlink()
    with pytest.raises(ConfigError, match="--resume"):
        train(config, "run")
    resumed = train(config, "run", resume=True)
    assert all(torch.equal(straight[key], value) for key, value in resumed.items())
    log = max((tmp_path / "run").glob("*/*.log")).read_text()
    assert "checkpoints.json is damaged" in log
    assert "iter_6.pth at step 6" in log
