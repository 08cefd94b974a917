"""Every sample is read and counted, even where a file takes its reader along."""

import faulthandler
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from torch import Tensor

from densevit.data.dataset import DenseDataset
from densevit.data.scan import Found, Tally, scan
from densevit.data.transforms import build_transforms
from densevit.errors import DataError
from densevit.structures import ClassTarget, SegTarget

ENDS: dict[int, Any] = {
    2: lambda: os.kill(os.getpid(), signal.SIGKILL),
    3: lambda: (faulthandler.disable(), os.kill(os.getpid(), signal.SIGSEGV)),
    4: lambda: os._exit(7),
    5: lambda: time.sleep(1000),
    6: lambda: torch.zeros(2).view(3),
}


class Deadly(DenseDataset):
    """Images of which some end the process that reads them."""

    classes, palette = ("low", "high"), [(0, 0, 0), (255, 0, 0)]

    def __init__(self, size: int, ends: tuple[int, ...] = ()) -> None:
        self.size, self.ends, self.transforms = size, ends, build_transforms([])

    def __len__(self) -> int:
        return self.size

    def path(self, index: int) -> str:
        return f"{index}.png"

    def files_of(self, index: int) -> tuple[str, ...]:
        return self.path(index), f"{index}_mask.png"

    def read(self, index: int) -> tuple[Tensor, Any, str]:
        if index in self.ends:
            ENDS[index]()
        if index == 1:
            raise DataError("1_mask.png: broken")
        return torch.zeros(3, 4 + index, 5), SegTarget(torch.tensor([[0, 1, 1, 255]])), self.path(index)  # type: ignore[arg-type]

    def check(self, mode: str) -> None:
        raise NotImplementedError


def found_in(dataset: DenseDataset, workers: int, timeout: float = 100) -> dict[int, Found]:
    found = list(scan(dataset, workers, timeout))
    assert sorted(each.index for each in found) == list(range(len(dataset)))
    return {each.index: each for each in found}


@pytest.mark.parametrize("workers", [1, 3])
def test_every_sample_is_read_once(workers: int) -> None:
    found = found_in(Deadly(7), workers)
    assert found[1] == Found(1, "1_mask.png: broken")
    assert found[3] == Found(3, None, (7, 5), {0: 1, 1: 2})


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_kills_its_reader_is_named_and_the_others_are_read(workers: int) -> None:
    errors = {i: each.error for i, each in found_in(Deadly(9, tuple(ENDS)), workers, timeout=2).items() if each.error}
    reasons = {
        1: "1_mask.png: broken",
        2: "2.png, 2_mask.png: reading it ended the process (SIGKILL, out of memory?); replace or remove it",
        3: "3.png, 3_mask.png: reading it ended the process (SIGSEGV); replace or remove it",
        4: "4.png, 4_mask.png: reading it ended the process (exit code 7); replace or remove it",
        5: "5.png, 5_mask.png: reading it took more than 2 s; replace or remove it",
    }
    assert {i: errors[i] for i in reasons} == reasons
    assert errors.keys() - reasons.keys() == {6}
    assert str(errors[6]).startswith("6.png, 6_mask.png: RuntimeError: shape")


def test_readers_end_with_the_scan() -> None:
    found = scan(Deadly(100), 2, timeout=100)
    next(found)
    readers = found.gi_frame.f_locals["readers"]  # type: ignore[attr-defined]
    found.close()  # type: ignore[attr-defined]
    assert [reader.process.is_alive() for reader in readers] == [False, False]


def test_sizes_and_classes_are_counted() -> None:
    tally = Tally(Deadly(6))
    for found in found_in(Deadly(5), 1).values():
        tally.add(found)
    assert tally.summary() == {
        "samples": 6,
        "good": 4,
        "bad": 1,
        "unread": 1,
        "sizes": {"smallest": (4, 5), "median": (7, 5), "largest": (8, 5)},
        "classes": {"low": {"samples": 4, "share": 1 / 3}, "high": {"samples": 4, "share": 2 / 3}},
    }


def test_the_class_of_a_whole_sample_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Deadly, "read", lambda self, i: (torch.zeros(3, 4, 5), ClassTarget(torch.tensor(1)), ""))
    assert found_in(Deadly(2), 1)[0].labels == {1: 1}


@pytest.fixture
def path(config: Config, tmp_path: Path) -> Path:
    config.pop("work_dir")
    config.dump(tmp_path / "tiny.py")
    return tmp_path / "tiny.py"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def test_the_tool_lists_bad_samples_of_all_splits(call, path: Path, scenes: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    cut(scenes / "images/train/003.jpg")
    cut(scenes / "annotations/val/013.png")
    out = tmp_path / "reports/report.jsonl"
    assert call("check_data", path, "--workers", 2, "--out", out) == 1
    *bad, summary = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(entry["split"], Path(entry["path"]).name) for entry in bad] == [
        ("train", "003.jpg"),
        ("val, test", "013.jpg"),
    ]
    assert "annotations/val/013.png: damaged" in bad[1]["error"]
    assert [Path(other).name for other in bad[1]["others"]] == ["013.png"]
    assert (summary["summary"]["train"]["good"], summary["summary"]["val, test"]["bad"]) == (11, 1)
    assert summary["summary"]["train"]["sizes"]["median"] == [64, 80]
    printed = capsys.readouterr().out
    assert "train: " + bad[0]["error"] in printed
    assert "disc" in printed


def test_the_tool_is_content_with_good_data(call, path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert call("check_data", path, "--split", "val", "--workers", 1) == 0
    assert "train" not in capsys.readouterr().out


def test_what_was_read_before_ctrl_c_is_told(  # type: ignore[no-untyped-def]
    call, path: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> Iterator[Found]:
        yield Found(0, "000.jpg: broken")
        raise KeyboardInterrupt

    monkeypatch.setattr("densevit.commands.check_data.scan", interrupted)
    assert call("check_data", path, "--out", tmp_path / "report.jsonl") == 130
    bad, summary = map(json.loads, (tmp_path / "report.jsonl").read_text().splitlines())
    assert bad["error"] == "000.jpg: broken"
    assert summary["summary"]["train"] == {"samples": 12, "good": 0, "bad": 1, "unread": 11, "sizes": {}, "classes": {}}
    assert "unread" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", 0], "--workers and --timeout must be positive"),
        (["--data-root", "nowhere"], "no folder nowhere"),
        (["--out", "/proc/none/report"], "choose another --out"),
    ],
)
def test_what_cannot_be_scanned_is_told(call, path: Path, capsys, arguments: list[Any], message: str) -> None:  # type: ignore[no-untyped-def]
    assert call("check_data", path, "--split", "val", *arguments) == 2
    assert message in capsys.readouterr().err
