"""A run that is killed at any moment, again and again, ends with the bits of one that was not."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from densevit.engine.checkpoint import find_fault
from densevit.engine.manifest import read_manifest
from densevit.weights import read_file
from tests.faults.victim import Moment, victim

NEVER = Moment("anywhere", -1)
INTERVAL = 2  # steps between checkpoints of the config
Seen = Callable[[str, object], None]


@pytest.fixture
def path(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config.dump(tmp_path / "tiny.py")
    return tmp_path / "tiny.py"


def diary(work_dir: Path) -> list[tuple[str, int]]:
    path = work_dir.with_suffix(".diary")
    lines = path.read_text().splitlines() if path.exists() else []
    return [(line.split()[0], int(line.split()[1])) for line in lines]


def steps_done_again(work_dir: Path) -> int:
    """Return the most steps that were lost by a kill, none of them before the last checkpoint that was due."""
    reached, most = 0, 0
    for what, step in diary(work_dir):
        if what == "begun":
            assert step >= reached // INTERVAL * INTERVAL, f"steps {step} to {reached} were saved, and done again"
            most = max(most, reached - step)
        reached = max(reached, step)
    return most


def assert_equal_runs(straight: Path, killed: Path) -> None:
    # A kill just before an old checkpoint is deleted may leave one more.
    assert read_manifest(straight).keys() <= read_manifest(killed).keys() == {p.name for p in killed.glob("*.pth")}
    assert not list(killed.glob("*.tmp"))
    for name in read_manifest(straight):
        assert find_fault(killed / name) is None
        one, other = (read_file(folder / name) for folder in (straight, killed))
        assert one["meta"]["iter"] == other["meta"]["iter"], name
        assert one["meta"].get("score") == other["meta"].get("score"), name
        for key, value in one["state_dict"].items():
            assert torch.equal(value, other["state_dict"][key]), (name, key)


def kill_again_and_again(path: Path, place: str, kills: int, seed: int, record_property: Seen) -> None:
    """Kill runs, each at moments drawn from those of a whole run until it gets to its end, and compare them."""
    folder = path.parent
    straight = folder / "straight"
    victim(path, straight, Moment(place, -1))
    calls = int(straight.with_suffix(".calls").read_text())
    draw, killed, lost, runs = random.Random(seed), 0, 0, 0
    while killed < kills:
        runs += 1
        work_dir, workers = folder / f"killed{runs}", 2 * (runs % 4 == 1)
        while victim(path, work_dir, Moment(place, draw.randrange(1, calls)) if killed < kills else NEVER, workers):
            killed += 1
        assert_equal_runs(straight, work_dir)
        lost = max(lost, steps_done_again(work_dir))
    record_property("tries", killed)
    record_property("seen", f"most steps done again: {lost}, with a checkpoint every {INTERVAL}")


@pytest.mark.slow
@pytest.mark.fault("`kill -9` at a random call of a function", "resumed, the same bits at the end")
def test_a_run_killed_at_any_call_ends_with_the_same_bits(path: Path, record_property: Seen) -> None:
    kill_again_and_again(path, "anywhere", 15, 1, record_property)


@pytest.mark.slow
@pytest.mark.fault("`kill -9` while files of a checkpoint are written", "resumed, the same bits at the end")
def test_a_run_killed_while_it_writes_a_checkpoint_ends_with_the_same_bits(path: Path, record_property: Seen) -> None:
    kill_again_and_again(path, "writing", 12, 2, record_property)


@pytest.mark.slow
@pytest.mark.fault("`kill -9` during a validation", "resumed, the same bits and best checkpoint at the end")
def test_a_run_killed_while_it_validates_ends_with_the_same_bits(path: Path, record_property: Seen) -> None:
    kill_again_and_again(path, "validating", 4, 3, record_property)


@pytest.mark.slow
@pytest.mark.fault("`kill -9` from outside after a random time", "resumed, the same bits at the end")
def test_a_run_killed_from_outside_ends_with_the_same_bits(path: Path, record_property: Seen) -> None:
    straight, work_dir = path.parent / "straight", path.parent / "killed"
    victim(path, path.parent / "first", Moment("anywhere", 1))  # which starts what the others are forked from
    start = time.monotonic()
    victim(path, straight, NEVER)
    whole, draw = time.monotonic() - start, random.Random(4)
    kills = sum(victim(path, work_dir, NEVER, 2, draw.uniform(0.4, 0.9) * whole) for _ in range(4))
    assert not victim(path, work_dir, NEVER)
    assert_equal_runs(straight, work_dir)
    record_property("tries", kills)
    record_property("seen", f"most steps done again: {steps_done_again(work_dir)}, with a checkpoint every {INTERVAL}")
