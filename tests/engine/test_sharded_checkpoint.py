"""A checkpoint that is a folder is kept, verified and replaced as one that is a file."""

import resource
import shutil
from pathlib import Path

import pytest
import torch

from densevit.checkpoint_folder import read_folder
from densevit.engine import sharded_checkpoint
from densevit.engine.checkpoint import find_fault, find_latest, remove, save_checkpoint
from densevit.engine.manifest import read_manifest
from densevit.engine.sharded_checkpoint import clean, save_folder
from densevit.errors import CheckpointError


class Killed(BaseException):
    pass


def state(step: int) -> dict[str, object]:
    return {"meta": {"iter": step, "epoch": 0}, "state_dict": {"weight": torch.full((1000,), float(step))}}


def step_of(path: Path) -> float:
    return float(read_folder(path)["state_dict"]["weight"][0])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a work_dir with a checkpoint of step 1 that is a file, and one of step 2 that is a folder."""
    save_checkpoint(state(1), tmp_path / "iter_1.pth")
    save_folder(state(2), tmp_path / "iter_2", score=0.5)
    return tmp_path


def test_every_file_is_in_the_manifest(run: Path) -> None:
    entry = read_manifest(run)["iter_2"]
    assert entry["files"].keys() == {"__0_0.distcp", ".metadata", "content.json"}
    assert (entry["iter"], entry["score"]) == (2, 0.5)
    assert find_fault(run / "iter_2") is None
    assert find_latest(run, print) == run / "iter_2"
    assert {path.name for path in run.iterdir()} == {"iter_1.pth", "iter_2", "checkpoints.json"}
    remove(run / "iter_2")
    assert not (run / "iter_2").exists()
    assert read_manifest(run).keys() == {"iter_1.pth"}


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "content.json"])
def test_a_flipped_byte_or_a_lost_file_is_noticed_and_the_one_before_is_taken(run: Path, name: str) -> None:
    told: list[str] = []
    data = bytearray((run / "iter_2" / name).read_bytes())
    data[len(data) // 2] ^= 1
    (run / "iter_2" / name).write_bytes(data)
    assert find_latest(run, told.append) == run / "iter_1.pth"
    (run / "iter_2" / name).unlink()
    assert find_latest(run, told.append) == run / "iter_1.pth"
    assert f"iter_2 is corrupt: its file {name} is corrupt: its bytes" in told[0]
    assert f"iter_2 is corrupt: its file {name} does not exist" in told[1]


def test_a_full_disk_costs_nothing_that_was_there(run: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"cannot write .*iter_3: File too large.*iter_2, which is intact"):
            save_folder(state(3), run / "iter_3")
        with pytest.raises(CheckpointError, match=r"cannot write .*iter_2: File too large"):
            save_folder(state(3), run / "iter_2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name for path in run.iterdir()} == {"iter_1.pth", "iter_2", "checkpoints.json"}
    assert find_fault(run / "iter_2") is None
    assert step_of(run / "iter_2") == 2


@pytest.mark.parametrize("moment", ["write_folder", "_put_in_place", "enter"])
def test_a_kill_while_saving_leaves_what_was_there(run: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = getattr(sharded_checkpoint, moment)

    def killed(*args: object) -> None:
        if moment == "write_folder":  # half of its files are there
            done(*args)
            (run / "iter_3.tmp" / "content.json").unlink()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(sharded_checkpoint, moment, killed)
        with pytest.raises(Killed):
            save_folder(state(3), run / "iter_3")
    clean(run)
    assert list(run.glob("*.tmp")) == []
    assert find_latest(run, print) == run / "iter_2"
    save_folder(state(3), run / "iter_3")
    assert step_of(find_latest(run, print) or run) == 3


def test_a_kill_while_the_best_is_replaced_keeps_one_of_the_two(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_folder(state(2), run / "best_mIoU", score=0.5)
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self.name == "best_mIoU.tmp":
            raise Killed
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(Killed):
            save_folder(state(3), run / "best_mIoU", score=0.6)
    assert not (run / "best_mIoU").exists()
    clean(run)
    assert find_fault(run / "best_mIoU") is None
    assert step_of(run / "best_mIoU") == 2
    save_folder(state(3), run / "best_mIoU", score=0.6)
    assert step_of(run / "best_mIoU") == 3
    assert find_fault(run / "best_mIoU") is None
    assert list(run.glob("*.old")) == []


def test_what_is_left_of_an_earlier_try_is_no_part_of_the_next(run: Path) -> None:
    shutil.copytree(run / "iter_2", run / "iter_3.tmp")
    (run / "iter_3.tmp" / "__1_0.distcp").write_bytes(b"old")
    save_folder(state(3), run / "iter_3")
    assert not (run / "iter_3" / "__1_0.distcp").exists()
