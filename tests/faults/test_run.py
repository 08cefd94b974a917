"""What goes wrong in a run is said at once, with the way out, and costs nothing that was there."""

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from densevit.engine.checkpoint import find_fault, find_latest, load_model, save_checkpoint
from densevit.engine.manifest import read_manifest
from densevit.engine.runner import Runner
from densevit.errors import CheckpointError, ConfigError, DataError, NonFiniteLossError

STATE = {"meta": {"iter": 1, "epoch": 0}, "state_dict": {"weight": torch.arange(1000.0)}}


def run(cfg: Config, work_dir: Path) -> Runner:
    cfg = cfg.copy()
    cfg.work_dir, cfg.experiment_name = str(work_dir), work_dir.name
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


class FullDisk:
    """Stands for `open` on a disk that takes the first ``room`` bytes."""

    def __init__(self, room: int) -> None:
        self.room, self.open = room, open

    def __call__(self, path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = self.open(path, mode, *args, **kwargs)
        if "w" in mode and "b" in mode:
            write = file.write

            def limited(data: Any) -> int:
                write(bytes(data)[: self.room])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

            file = _With(file, limited)
        return file


class _With:
    def __init__(self, file: Any, write: Any) -> None:
        self.file, self.write = file, write

    def __enter__(self) -> "_With":
        return self

    def __exit__(self, *error: Any) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.fault("full disk while a checkpoint is written", "the one before is whole, and named")
def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(STATE, tmp_path / "iter_1.pth")
    monkeypatch.setattr("builtins.open", FullDisk(room=100))
    with pytest.raises(CheckpointError, match=r"No space left.*--resume.*iter_1\.pth"):
        save_checkpoint({**STATE, "meta": {"iter": 2, "epoch": 0}}, tmp_path / "iter_2.pth")
    monkeypatch.undo()
    assert {p.name for p in tmp_path.iterdir()} == {"iter_1.pth", "checkpoints.json"}
    assert find_fault(tmp_path / "iter_1.pth") is None


@pytest.mark.fault("byte of a checkpoint flipped, or the rest of it cut off", "noticed; the one before is named")
def test_every_damage_to_a_checkpoint_is_noticed(tmp_path: Path, record_property: Callable[[str, int], None]) -> None:
    path = tmp_path / "iter_2.pth"
    save_checkpoint(STATE, tmp_path / "iter_1.pth")
    save_checkpoint({**STATE, "meta": {"iter": 2, "epoch": 0}}, path)
    data = path.read_bytes()
    places = range(0, len(data), len(data) // 64)
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1
        for damaged in (flipped, data[:place]):
            path.write_bytes(damaged)
            assert "is corrupt" in str(find_fault(path))
            told: list[str] = []
            assert find_latest(tmp_path, told.append) == tmp_path / "iter_1.pth"
            assert "iter_2.pth is corrupt" in told[0]
    path.write_bytes(data)
    assert find_fault(path) is None
    record_property("tries", 2 * len(places))


@pytest.mark.fault("checkpoint of another model", "refused, names what differs")
def test_a_checkpoint_of_another_model_is_refused_and_says_of_which(config: Config, tmp_path: Path) -> None:
    runner = run(config, tmp_path / "run")
    config.model.head.num_classes = 5
    from densevit.registry import MODELS

    with pytest.raises(CheckpointError, match=r"another model.*linear_pred"):
        load_model(MODELS.build(config.model), tmp_path / "run" / "iter_8.pth")
    assert runner.iter == 8


@pytest.mark.fault("checkpoint without optimizer resumed", "refused, names `--weights`")
def test_an_optimizer_is_needed_to_resume(config: Config, tmp_path: Path) -> None:
    run(config, tmp_path / "run")
    path = tmp_path / "run" / "iter_8.pth"
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["optimizer"]
    torch.save(checkpoint, tmp_path / "bare.pth")
    config.resume, config.load_from = True, str(tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match="--weights"):
        run(config, tmp_path / "second")


@pytest.mark.fault("loss that is not finite", "stops, names the files; no such weights are saved")
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_files(config: Config, tmp_path: Path) -> None:
    config.optim_wrapper.optimizer.lr = 1e30
    with pytest.raises(NonFiniteLossError, match=r"scenes/images/train/\d+\.jpg.*Nothing is saved yet"):
        run(config, tmp_path / "run")
    for name in read_manifest(tmp_path / "run"):
        weights = torch.load(tmp_path / "run" / name, weights_only=True)["state_dict"]
        assert all(torch.isfinite(w.float()).all() for w in weights.values())


def test_a_wrong_number_of_classes_is_found_before_training(config: Config, tmp_path: Path) -> None:
    config.model.head.num_classes = 4
    with pytest.raises(ConfigError, match=r"dataset has 3 classes .*num_classes is 4"):
        run(config, tmp_path / "run")


@pytest.mark.fault("label out of range", "stops before training, names the file")
def test_a_label_out_of_range_is_found_before_training(config: Config, scenes: Path, tmp_path: Path) -> None:
    mask = np.full((64, 80), 7, np.uint8)
    cv2.imwrite(str(scenes / "annotations/train/003.png"), mask)
    with pytest.raises(DataError, match=r"003\.png.*ids 7"):
        run(config, tmp_path / "run")


@pytest.mark.fault("image truncated", "recorded and replaced, the run goes on")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_truncated_image_is_recorded_and_replaced(config: Config, scenes: Path, tmp_path: Path, workers: int) -> None:
    path = scenes / "images/train/003.jpg"
    path.write_bytes(path.read_bytes()[:600])
    config.train_dataloader.num_workers = workers
    run(config, tmp_path / "run")
    entries = [json.loads(line) for line in (tmp_path / "run" / "bad_samples.jsonl").read_text().splitlines()]
    assert [Path(entry["path"]).name for entry in entries] == ["003.jpg"]
    assert Path(entries[0]["replaced_by"]).name == "004.jpg"


@pytest.mark.fault("too many images truncated", "stops, names the list of them")
def test_a_run_stops_when_too_many_images_are_bad(config: Config, scenes: Path, tmp_path: Path) -> None:
    for index in range(4):
        path = scenes / f"images/train/{index:03d}.jpg"
        path.write_bytes(path.read_bytes()[:600])
    config.check_data = "off"
    with pytest.raises(DataError, match=r"bad_samples\.jsonl"):
        run(config, tmp_path / "run")


@pytest.mark.fault("image truncated, in an evaluation", "left out, and said")
def test_a_bad_image_is_left_out_of_an_evaluation(config: Config, scenes: Path, tmp_path: Path) -> None:
    runner = run(config, tmp_path / "run")
    path = scenes / "images/val/013.jpg"
    path.write_bytes(path.read_bytes()[:600])
    config.load_from, config.work_dir = str(Path(runner.work_dir) / "iter_8.pth"), str(tmp_path / "test")
    assert 0 < Runner.from_cfg(config).test()["mIoU"] <= 1
    assert "013.jpg" in (tmp_path / "test" / "bad_samples.jsonl").read_text()
    (log,) = (tmp_path / "test").glob("*/*.log")
    assert "4 of 5 samples are scored" in log.read_text()


@pytest.mark.fault("half-written `*.tmp` left behind", "cleared")
def test_orphans_of_a_killed_save_are_cleared(config: Config, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "iter_2.pth.tmp").write_bytes(b"half")
    run(config, tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.tmp"))


@pytest.mark.fault("both newest checkpoints corrupt", "resumed before them; the new ones are kept")
def test_a_run_resumed_before_corrupt_checkpoints_keeps_its_new_ones(config: Config, tmp_path: Path) -> None:
    config.default_hooks.checkpoint = {"type": "CheckpointHook", "interval": 2, "max_keep_ckpts": 3}
    run(config, tmp_path / "run")
    for name in ("iter_6.pth", "iter_8.pth"):
        (tmp_path / "run" / name).write_bytes(b"corrupt")
    config.default_hooks.checkpoint = {"type": "CheckpointHook", "interval": 1, "max_keep_ckpts": 1}
    config.train_cfg.max_iters = 5
    config.resume = True
    run(config, tmp_path / "run")
    assert find_fault(tmp_path / "run" / "iter_5.pth") is None


def test_the_log_says_what_is_being_trained_with(config: Config, tmp_path: Path) -> None:
    run(config, tmp_path / "run")
    log = next((tmp_path / "run").glob("*/*.log")).read_text()
    assert "batch size: 4 x 1 processes x 1 accumulated = 4" in log
    assert re.search(r"Iter\(val\).*mIoU.*loss", log)


def test_other_classes_to_validate_are_refused(config: Config) -> None:
    config.val_dataloader.dataset.classes = ("ground", "disc", "square")
    with pytest.raises(ConfigError, match="number 1 is 'square' and 'disc'"):
        Runner.from_cfg(config).train()


def test_other_classes_than_those_of_the_checkpoint_are_told(config: Config, tmp_path: Path) -> None:
    runner = run(config, tmp_path / "run")
    config.load_from, config.work_dir = str(Path(runner.work_dir) / "iter_8.pth"), str(tmp_path / "test")
    config.test_dataloader.dataset.classes = ("ground", "disc", "square")
    Runner.from_cfg(config).test()
    log = next((tmp_path / "test").glob("*/*.log")).read_text()
    assert "trained with other classes: number 1 is 'square' and 'disc'" in log


def test_runs_that_start_in_the_same_second_keep_their_own_logs(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.strftime", lambda *args: "20260101_000000")
    for name in ("a", "b"):
        config.work_dir = str(tmp_path / name)
        Runner.from_cfg(config).logger.info(f"this is {name}")
    for name in ("a", "b"):
        assert f"this is {name}" in next((tmp_path / name).glob("*/*.log")).read_text()


def test_weights_are_loaded_before_training(config: Config, tmp_path: Path) -> None:
    run(config, tmp_path / "run")
    config.model.weights = str(tmp_path / "run" / "iter_8.pth")
    config.work_dir = str(tmp_path / "second")
    weights = torch.load(tmp_path / "run" / "iter_8.pth", weights_only=True)["state_dict"]
    model = Runner.from_cfg(config).model
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
