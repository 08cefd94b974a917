"""A run that goes on with another batch skips nothing, and says what is not as it would have been."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from densevit.data.grouped_sampler import GroupedBatchSampler
from densevit.data.sampler import MultiScaleBatchSampler, TrainSampler
from densevit.engine.checkpoint import find_latest, save_checkpoint
from densevit.engine.position import Batch, changes, entries
from densevit.engine.runner import Runner
from densevit.errors import CheckpointError
from densevit.structures import Sample

SIZE = 37


def endless(batch_size: int, world_size: int) -> Any:
    return TrainSampler(SIZE, batch_size, 1, world_size=world_size)


def by_epoch(batch_size: int, world_size: int) -> Any:
    return TrainSampler(SIZE, batch_size, 1, whole_batches=True, world_size=world_size)


def multi_scale(batch_size: int, world_size: int) -> Any:
    return MultiScaleBatchSampler(endless(batch_size, world_size), batch_size, [32, 48, 64], 48)


def grouped(batch_size: int, world_size: int) -> Any:
    return GroupedBatchSampler(endless(batch_size, world_size), batch_size, np.arange(SIZE) % 3 == 0)


@pytest.mark.parametrize("build", [endless, by_epoch, multi_scale, grouped])
def test_every_batch_is_found_again_by_its_position(build: Callable[..., Any]) -> None:
    order = build(4, 2)
    assert [order.step_at(*order.position(step)) for step in range(40)] == list(range(40))


@pytest.mark.parametrize("build", [endless, by_epoch, multi_scale, grouped])
@pytest.mark.parametrize("other", [(2, 1), (4, 1), (3, 2), (4, 3), (8, 2)])
def test_another_batch_begins_at_the_position_or_less_than_a_batch_before(
    build: Callable[..., Any], other: tuple[int, int]
) -> None:
    before, after = build(4, 2), build(*other)
    for step in range(40):
        epoch, seen = before.position(step)
        found = after.step_at(epoch, seen)
        assert after.position(found) <= (epoch, seen) or after.position(found) == (epoch + 1, 0)
        assert after.position(found + 1) > (epoch, seen)


class Recorder(Hook):
    """Takes down which samples each step sees."""

    def __init__(self) -> None:
        self.steps: list[list[str]] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: list[Sample] | None = None) -> None:
        self.steps.append([Path(sample.meta.path).stem for sample in data_batch or ()])


def seen(config: Config, work_dir: Path, resume: bool = False) -> list[list[str]]:
    """Return the samples of the steps of a run."""
    cfg = config.copy()
    cfg.work_dir, cfg.resume, cfg.experiment_name = str(work_dir), resume, f"{work_dir.name}_{resume}"
    runner, recorder = Runner.from_cfg(cfg), Recorder()
    runner.register_hook(recorder)
    runner.train()
    return recorder.steps


def flat(steps: list[list[str]]) -> list[str]:
    return [sample for step in steps for sample in step]


def keep(work_dir: Path, *steps: int) -> None:
    """Leave the checkpoints of these steps."""
    for path in work_dir.glob("*.pth"):
        if path.stem.removeprefix("iter_") not in map(str, steps):
            path.unlink()


def log_of(work_dir: Path) -> str:
    return max(work_dir.glob("*/*.log")).read_text()


@pytest.fixture
def run(config: Config) -> Config:
    """Return 8 steps of 4 of 12 samples, without validation."""
    config.train_cfg.val_interval = 100
    config.default_hooks.checkpoint = {"type": "CheckpointHook", "interval": 2, "max_keep_ckpts": 9}
    return config


def test_smaller_batches_go_on_where_the_larger_ones_were(run: Config, tmp_path: Path) -> None:
    straight = flat(seen(run, tmp_path / "run"))
    keep(tmp_path / "run", 4)
    run.train_dataloader.batch_size = 2
    assert flat(seen(run, tmp_path / "run", resume=True)) == straight[16:24]
    log = log_of(tmp_path / "run")
    assert "resuming with another batch: 4 x 1 processes x 1 accumulated = 4 before, 2 x 1" in log
    assert "the data go on at sample 5 of pass 2; none is left out or seen again" in log
    assert "other samples make up a step" in log

    keep(tmp_path / "run", 6)  # and on from a checkpoint of that
    run.train_dataloader.batch_size = 4
    assert flat(seen(run, tmp_path / "run", resume=True)) == straight[20:28]


def test_epochs_of_another_number_of_steps_end_at_the_same_epoch(run: Config, tmp_path: Path) -> None:
    run.train_cfg = {"by_epoch": True, "max_epochs": 3, "val_interval": 100}
    straight = flat(seen(run, tmp_path / "run"))
    keep(tmp_path / "run", 4)
    run.train_dataloader.batch_size = 2
    resumed = seen(run, tmp_path / "run", resume=True)
    assert flat(resumed) == straight[16:]
    assert "step 4 is step 8 now" in log_of(tmp_path / "run")
    assert (tmp_path / "run" / "iter_18.pth").exists()


def test_larger_batches_count_fewer_steps_and_their_checkpoints_are_the_newest(run: Config, tmp_path: Path) -> None:
    run.train_cfg = {"by_epoch": True, "max_epochs": 3, "val_interval": 100}
    run.train_dataloader.batch_size = 2
    seen(run, tmp_path / "run")
    keep(tmp_path / "run", 12)
    run.train_dataloader.batch_size = 4
    run.default_hooks.checkpoint.max_keep_ckpts = 2
    assert len(seen(run, tmp_path / "run", resume=True)) == 3
    assert {path.name for path in (tmp_path / "run").glob("*.pth")} == {"iter_8.pth", "iter_9.pth"}
    assert seen(run, tmp_path / "run", resume=True) == []
    assert "iter_9.pth at step 9" in log_of(tmp_path / "run")


def test_the_newest_checkpoint_is_the_one_written_last_whatever_its_step(tmp_path: Path) -> None:
    steps = {"iter_12.pth": 12, "iter_8.pth": 8, "best_mIoU.pth": 9, "iter_9.pth": 9}
    for name in (*steps, "iter_8.pth"):
        save_checkpoint({"meta": {"iter": steps[name], "epoch": 0}}, tmp_path / name)
    warnings: list[str] = []
    for expected in ("iter_8.pth", "iter_9.pth", "iter_12.pth", "best_mIoU.pth"):
        found = find_latest(tmp_path, warnings.append)
        assert found == tmp_path / expected
        found.unlink()
    assert warnings == []


def test_a_run_goes_on_after_a_checkpoint_of_the_last_step_of_an_epoch(run: Config, tmp_path: Path) -> None:
    run.train_cfg = {"by_epoch": True, "max_epochs": 3, "val_interval": 1}
    run.default_hooks.checkpoint.interval = 3
    straight = seen(run, tmp_path / "run")
    keep(tmp_path / "run", 3)
    assert seen(run, tmp_path / "run", resume=True) == straight[3:]
    assert log_of(tmp_path / "run").count("Iter(val)") == 3  # that of the finished epoch was due


def test_a_changed_batch_is_told_and_the_same_one_is_not() -> None:
    two, one = Batch(2, 2, 1), Batch(4, 1, 1)
    meta = {"iter": 5, **entries(two, (0, 20))}
    assert changes(meta, two, 5, (0, 20)) is None
    assert "each step sees the same samples" in str(changes(meta, one, 5, (0, 20)))
    three = str(changes(meta, Batch(3, 1, 1), 6, (0, 18)))
    assert "go on at sample 19 of pass 1; sample 21 of pass 1 was reached: none is left out" in three
    assert "step 5 is step 6 now" in three
    assert "some samples of this pass may be seen twice" in str(changes(meta, one, 5, (0, 20), grouped=True))


def test_what_is_no_checkpoint_of_a_run_cannot_be_resumed_and_says_why(run: Config, tmp_path: Path) -> None:
    seen(run, tmp_path / "run")
    checkpoint = torch.load(tmp_path / "run" / "iter_8.pth", weights_only=True)
    del checkpoint["meta"]["data_seen"]
    torch.save(checkpoint, tmp_path / "old.pth")
    run.load_from = str(tmp_path / "old.pth")
    with pytest.raises(CheckpointError, match=r"old\.pth cannot be resumed: it holds no data_seen.*--weights"):
        seen(run, tmp_path / "other", resume=True)
