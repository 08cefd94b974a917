"""Runs side by side: what their folders tell of them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from PIL import Image

from densevit.engine.comparison import compare
from densevit.engine.curves import read_scalars
from densevit.engine.run_summary import read_start
from densevit.engine.runner import Runner

Call = Callable[..., int]
START = {
    "config": "a.py",
    "parameters": 3_000_000,
    "batch_size": 8,
    "processes": 2,
    "validation_batches": 5,
    "device": "GPU",
    "model": {"type": "Unheard"},
}


def write(folder: Path, started: str, step: int, score: float, start: dict[str, Any] | None = START) -> None:
    log = folder / started / "vis_data" / "scalars.json"
    log.parent.mkdir(parents=True)
    train = {"loss": 1.0, "lr": 0.1, "time": 0.5, "data_time": 0.1, "memory": 2048, "iter": step, "step": step}
    lines = [train, {"mIoU": score, "time": 2.0, "data_time": 0.0, "step": step}]
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    if start is not None:
        (folder / started / "start.json").write_text(json.dumps(start))


def test_a_run_has_scores_and_costs_over_all_of_its_starts(tmp_path: Path) -> None:
    write(tmp_path, "20260101_000000", 100, 0.6)
    write(tmp_path, "20260102_000000", 200, 0.4)
    columns, (row,) = compare({"mine": (tmp_path, read_scalars(tmp_path))})
    found = dict(zip(columns, row, strict=True))
    assert found == {
        "run": "mine",
        "config": "a.py",
        "parameters": "3.00 M",  # and no MACs, as no module of ours has this name
        "mIoU, last": "0.4000",
        "mIoU, best (at step)": "0.6000 (100)",
        "steps": "200",
        "time": "0:02:00",  # 200 steps of 0.5 s, 2 x 5 batches of 2 s
        "samples/s": "32.0",
        "memory": "2.0 GiB",
        "batch": "8 x 2",
        "device": "GPU",
    }


def test_what_a_run_does_not_tell_is_left_open(tmp_path: Path) -> None:
    write(tmp_path / "a", "20260101_000000", 100, 0.6)
    write(tmp_path / "b", "20260101_000000", 100, 0.7, start=None)
    columns, rows = compare({name: (tmp_path / name, read_scalars(tmp_path / name)) for name in "ab"})
    assert dict(zip(columns, rows[1], strict=True))["mIoU, last"] == "0.7000"
    assert dict(zip(columns, rows[1], strict=True))["parameters"] == "-"


def test_half_a_description_of_a_start_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "20260101_000000", 100, 0.6)
    (tmp_path / "20260102_000000").mkdir()
    (tmp_path / "20260102_000000" / "start.json").write_text('{"config": "b')
    assert read_start(tmp_path)["config"] == "a.py"
    assert read_start(tmp_path / "none") == {}


def test_the_tool_compares_two_real_runs(
    config: Config, tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    config.visualizer = {"type": "Visualizer", "vis_backends": [{"type": "LocalVisBackend"}]}
    config.default_hooks = {
        "logger": {"type": "LoggerHook", "interval": 2, "log_metric_by_epoch": False},
        "report": {"type": "ReportHook"},
    }
    config.train_cfg.max_iters = 4
    folders = [tmp_path / name / "run" for name in ("narrow", "wide")]
    for folder, width in zip(folders, (8, 64), strict=True):
        config.model.head.channels = width
        config.work_dir = str(folder)
        config.experiment_name = config.visualizer["name"] = f"{tmp_path.name}_{width}"
        Runner.from_cfg(config).train()
    capsys.readouterr()
    assert call("compare", *folders, "--out", tmp_path / "both") == 0
    printed = capsys.readouterr().out
    text = (tmp_path / "both" / "compare.md").read_text()
    names, _, narrow, wide = (line.strip("| ").split(" | ") for line in text.splitlines()[2:6])
    assert (narrow[0], wide[0]) == ("narrow/run", "wide/run")
    assert narrow[0] in printed
    macs = [float(row[names.index("MACs")].split()[0]) for row in (narrow, wide)]
    assert 0 < macs[0] < macs[1]
    assert re.search(r"\| samples/s \|.* mIoU, last \|", text)
    assert Image.open(tmp_path / "both" / "compare.png").width > 1000


def test_a_folder_that_is_no_run_or_is_given_twice_is_named(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("compare", tmp_path) == 2
    assert f"{tmp_path} has no log of a training" in capsys.readouterr().err
    assert call("compare", tmp_path, tmp_path) == 2
    assert "a folder is given twice" in capsys.readouterr().err
