"""The list of bad samples says all there is to say, once, and whatever becomes of the list ends no run."""

import hashlib
import json
import multiprocessing
import warnings
from pathlib import Path
from typing import Any

import pytest

from densevit.data.quarantine import Quarantine
from densevit.errors import DataError

ERROR = DataError("masks/7.png: truncated")


def quarantine(path: Path, total: int = 1000, replace: bool = True) -> Quarantine:
    return Quarantine(path, total, replace)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a list of three bad samples, 0 to 2."""
    path = tmp_path / "run/bad_samples.jsonl"
    for number in range(3):
        quarantine(path).record([str(number)], ERROR)
    return path


def listed(path: Path) -> list[str]:
    return [json.loads(line)["path"] for line in path.read_text().splitlines()]


def test_all_files_of_a_sample_are_told_apart_by_their_content(tmp_path: Path) -> None:
    for name, content in (("7.jpg", b"image"), ("7.png", b"mask")):
        (tmp_path / name).write_bytes(content)
    files = [str(tmp_path / name) for name in ("7.jpg", "7.png", "gone.png")]
    quarantine(tmp_path / "bad.jsonl").record(files, ERROR, replaced_by="8.jpg")
    assert json.loads((tmp_path / "bad.jsonl").read_text()) == {
        "path": files[0],
        "error": "masks/7.png: truncated",
        "sha256": hashlib.sha256(b"image").hexdigest(),
        "others": {files[1]: hashlib.sha256(b"mask").hexdigest(), files[2]: None},
        "replaced_by": "8.jpg",
        "training": True,
    }


@pytest.mark.parametrize("kept", range(1, 60, 7))
def test_a_line_that_a_killed_process_left_unfinished_is_cut_off(path: Path, kept: int) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:kept])
    with pytest.warns(UserWarning, match=r"bad_samples\.jsonl: its last line was never finished, and is cut off"):
        quarantine(path).record(["3"], ERROR)
    assert listed(path) == ["0", "1", "2", "3"]


def test_a_last_line_without_its_end_is_kept(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    quarantine(path).record(["3"], ERROR)
    assert listed(path) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    "damage",
    [b"\xff\xfe", b"[]", b"3", b"{}", b'{"path": "x"}', b'{"path": 3, "training": true}', b"{" * 9999],
)
def test_a_damaged_line_is_passed_over_and_told(path: Path, damage: bytes) -> None:
    path.write_bytes(damage + b"\n\n" + path.read_bytes())
    with pytest.warns(UserWarning, match="1 of its lines cannot be read, and are passed over"):
        quarantine(path).record(["2"], ERROR)
    assert path.read_bytes().startswith(damage + b"\n\n")
    assert path.read_bytes().count(b"\n") == 5


def test_an_intact_list_is_no_cause_for_a_warning(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quarantine(path).record(["0"], ERROR)
    assert listed(path) == ["0", "1", "2"]


def test_a_list_that_cannot_be_written_is_named_with_the_bad_sample(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(DataError, match=r"masks/7\.png: truncated. This cannot be listed in .*run/bad.*--resume"):
        quarantine(tmp_path / "run/bad_samples.jsonl").record(["3"], ERROR)


def record_all(path: Path, evaluated: int, barrier: Any) -> None:
    for number in range(20):
        barrier.wait(timeout=60)
        quarantine(path, 10_000).record([f"{number:03d}", f"{path}.large"], ERROR)  # which takes a while to hash
        if number % 4 == evaluated:
            quarantine(path, 10_000, replace=False).record([f"{number:03d}"], ERROR)


def test_processes_that_meet_the_same_samples_list_each_once_in_whole_lines(tmp_path: Path) -> None:
    path, fork = tmp_path / "bad_samples.jsonl", multiprocessing.get_context("fork")
    barrier = fork.Barrier(4)
    Path(f"{path}.large").write_bytes(bytes(2**24))
    processes = [fork.Process(target=record_all, args=(path, i, barrier)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert sorted(listed(path)) == sorted([f"{number:03d}" for number in range(20)] * 2)
