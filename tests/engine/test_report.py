"""What is logged becomes curves, a summary and pictures, over resumed runs; failing at that loses nothing."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch import Tensor, nn

from densevit.data.dataset import DenseDataset
from densevit.data.readers import read_image
from densevit.engine.curves import plot_curves, read_scalars, smooth
from densevit.engine.report import ReportHook, side_by_side
from densevit.engine.runner import Runner
from densevit.errors import DataError
from densevit.structures import Meta, Sample, SegTarget


def train_line(step: int, loss: float = 1.0) -> dict[str, float]:
    return {"lr": 0.01, "data_time": 0.1, "loss": loss, "time": 0.4, "iter": step, "memory": 7, "step": step}


def val_line(step: int, miou: float) -> dict[str, float]:
    return {"mIoU": miou, "loss": 2.0, "data_time": 9.0, "time": 9.0, "step": step}


def log(work_dir: Path, start: str, lines: list[dict[str, float]]) -> Path:
    file = work_dir / start / "vis_data" / "scalars.json"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_training_and_validation_are_told_apart(tmp_path: Path) -> None:
    log(tmp_path, "20260101_000000", [train_line(10, 1.5), train_line(20, 1.0), val_line(20, 0.3)])
    scalars = read_scalars(tmp_path)
    assert scalars["train/loss"] == [(10, 1.5), (20, 1.0)]
    assert scalars["val/loss"] == [(20, 2.0)]
    assert scalars["val/mIoU"] == [(20, 0.3)]
    assert scalars["train/time"] == [(10, 0.4), (20, 0.4)]


def test_a_resumed_run_takes_over_where_it_begins(tmp_path: Path) -> None:
    log(tmp_path, "20260102_000000", [train_line(30, 0.5), train_line(40, 0.4), val_line(40, 0.6)])
    first = [train_line(10, 2.0), train_line(20, 1.0), val_line(20, 0.3), train_line(35, 9.0), train_line(50, 9.0)]
    log(tmp_path, "20260101_000000", first)
    scalars = read_scalars(tmp_path)
    assert scalars["train/loss"] == [(10, 2.0), (20, 1.0), (30, 0.5), (40, 0.4)]
    assert scalars["val/mIoU"] == [(20, 0.3), (40, 0.6)]


def test_half_a_line_and_a_validation_outside_of_training_are_left_out(tmp_path: Path) -> None:
    file = log(tmp_path, "20260101_000000", [train_line(10), val_line(0, 0.9)])
    file.write_text(file.read_text() + '{"lr": 0.01, "lo')
    assert set(read_scalars(tmp_path)) == {f"train/{k}" for k in ("lr", "data_time", "loss", "time", "memory")}


def test_smoothing_averages_noise_away_and_keeps_a_slope() -> None:
    slope = [(i, float(i)) for i in range(200)]
    assert smooth(slope) == [(i, pytest.approx(value)) for i, value in slope]
    noise = [(i, float(i % 2)) for i in range(200)]
    assert [value for _, value in smooth(noise)][20:-20] == pytest.approx([0.5] * 160, abs=0.1)
    assert smooth([]) == []


def test_several_runs_are_drawn_into_one_picture(tmp_path: Path) -> None:
    for name in ("short", "long"):
        log(tmp_path / name, "20260101_000000", [train_line(10), train_line(20), val_line(20, 0.4)])
    one, both = tmp_path / "one.png", tmp_path / "both.png"
    plot_curves({"short": read_scalars(tmp_path / "short")}, one)
    plot_curves({name: read_scalars(tmp_path / name) for name in ("short", "long")}, both)
    assert Image.open(one).size == Image.open(both).size
    assert one.read_bytes() != both.read_bytes()


def test_a_folder_without_a_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing was logged by run"):
        plot_curves({"run": read_scalars(tmp_path)}, tmp_path / "curves.png")


@dataclass
class Prediction:
    mask: Tensor

    def draw(self, image: np.ndarray, classes: tuple[str, ...], palette: Any) -> np.ndarray:
        return np.array(palette, dtype=np.uint8)[self.mask.numpy()]

    def draw_truth(self, image: np.ndarray, target: SegTarget, classes: Any, palette: Any) -> np.ndarray:
        return Prediction(target.mask).draw(image, classes, palette)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(9, 1)  # 10 parameters

    def test_step(self, data: list[Sample]) -> list[Prediction]:
        assert not self.training
        return [Prediction(torch.ones(20, 30, dtype=torch.long)) for _ in data]


class Confusion:
    """A metric that draws."""

    def pictures(self) -> dict[str, np.ndarray]:
        return {"confusion": np.full((5, 5, 3), 9, np.uint8)}


class Scenes:
    classes, palette = ("sky", "road"), ((0, 0, 255), (90, 90, 90))
    picture = staticmethod(DenseDataset.picture)

    def __init__(self, folder: Path) -> None:
        self.paths = [folder / f"scene{i}.png" for i in range(9)]
        for path in self.paths:
            Image.new("RGB", (30, 20), "green").save(path)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> tuple[Tensor, SegTarget, str]:
        target = SegTarget(torch.zeros(20, 30, dtype=torch.long))
        return read_image(self.paths[index]), target, str(self.paths[index])

    def __getitem__(self, index: int) -> Sample | None:
        _, target, path = self.read(index)
        return None if index == 0 else Sample(torch.zeros(3, 20, 30), target, Meta(path, (20, 30), (20, 30)))


@pytest.fixture
def runner(tmp_path: Path) -> SimpleNamespace:
    lines = [train_line(50), val_line(50, 0.7), train_line(100), val_line(100, 0.6)]
    log(tmp_path / "run", "20260101_000000", lines)
    return SimpleNamespace(
        work_dir=str(tmp_path / "run"),
        cfg=SimpleNamespace(filename="configs/mit_shapes.py"),
        model=Network(),
        val_loop=SimpleNamespace(
            dataloader=SimpleNamespace(dataset=Scenes(tmp_path)), evaluator=SimpleNamespace(metrics=[Confusion(), 0])
        ),
        iter=100,
        seed=3,
        world_size=1,
        logger=logging.getLogger("report"),
    )


def test_the_summary_holds_last_and_best_scores_costs_and_origin(runner: Any) -> None:
    ReportHook().after_train(runner)
    text = (Path(runner.work_dir) / "results.md").read_text()
    assert "| metric | last (step 100) | best | at step |" in text
    assert "| mIoU | 0.6000 | 0.7000 | 50 |" in text
    assert "| time per step | 400 ms, 25% of it loading data (medians) |" in text
    assert "| training time | 0:00:40, without validation |" in text
    assert "| config | mit_shapes.py |" in text
    assert "| parameters | 0.00 M |" in text
    assert "| seed | 3 |" in text
    assert f"torch {torch.__version__}" in text
    assert "![curves](curves.png)" in text


def test_the_best_loss_is_the_lowest(runner: Any) -> None:
    log(
        Path(runner.work_dir), "20260102_000000", [{**val_line(60, 0.1), "loss": 0.5}, {**val_line(70, 0.1), "loss": 4}]
    )
    ReportHook().after_train(runner)
    assert "| loss | 2.0000 | 0.5000 | 60 |" in (Path(runner.work_dir) / "results.md").read_text()


def test_pictures_show_input_truth_and_prediction(runner: Any) -> None:
    ReportHook(num_samples=3).after_train(runner)
    folder = Path(runner.work_dir) / "predictions"
    assert sorted(p.name for p in folder.iterdir()) == ["00004_scene4.png", "00008_scene8.png"]  # 0 cannot be read
    picture = np.array(Image.open(folder / "00004_scene4.png"))
    for left, colour in [(8, (0, 128, 0)), (46, (0, 0, 255)), (84, (90, 90, 90))]:
        assert (picture[24:44, left : left + 30] == colour).all()
    assert (picture[:24] != 255).any()  # captions


def test_what_metrics_draw_is_written_after_a_training_and_after_a_test(runner: Any) -> None:
    folder = Path(runner.work_dir)
    ReportHook().after_train(runner)
    assert np.asarray(Image.open(folder / "val_confusion.png")).shape == (5, 5, 3)
    assert "![val_confusion](val_confusion.png)" in (folder / "results.md").read_text()
    runner.test_loop = runner.val_loop
    ReportHook().after_test(runner)
    assert (np.asarray(Image.open(folder / "confusion.png")) == 9).all()


def test_panels_of_unequal_size_do_not_overlap() -> None:
    picture = np.array(side_by_side({"a": np.zeros((10, 10, 3), np.uint8), "b": np.zeros((50, 20, 3), np.uint8)}))
    assert picture.shape == (50 + 24 + 8, 10 + 20 + 3 * 8, 3)
    assert (picture[24:74, 26:46] == 0).all()
    assert (picture[34:74, 8:18] == 255).all()


def test_a_failing_report_is_logged_and_the_training_kept(runner: Any, caplog: pytest.LogCaptureFixture) -> None:
    runner.model.test_step = lambda data: 1 / 0
    ReportHook().after_train(runner)
    assert "training is complete, but its report could not be written: ZeroDivisionError" in caplog.text
    assert (Path(runner.work_dir) / "curves.png").exists()


def test_without_validation_there_are_still_curves(runner: Any) -> None:
    runner.val_loop = None
    file = next(Path(runner.work_dir).glob("*/vis_data/scalars.json"))
    file.write_text(json.dumps(train_line(50)) + "\n")
    ReportHook().after_train(runner)
    assert "None: the run had no validation." in (Path(runner.work_dir) / "results.md").read_text()
    assert (Path(runner.work_dir) / "curves.png").exists()


def test_worker_ranks_write_nothing(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("densevit.engine.report.is_main_process", lambda: False)
    ReportHook().after_train(runner)
    assert not (Path(runner.work_dir) / "results.md").exists()


def test_a_training_and_its_continuation_leave_one_report(config: Config, tmp_path: Path) -> None:
    config.visualizer = {"type": "Visualizer", "vis_backends": [{"type": "LocalVisBackend"}]}
    config.default_hooks.logger = {"type": "LoggerHook", "interval": 2, "log_metric_by_epoch": False}
    config.default_hooks.report = {"type": "ReportHook"}
    for steps in (8, 12):
        config.train_cfg.max_iters, config.resume = steps, steps > 8
        config.experiment_name = config.visualizer["name"] = f"{tmp_path.name}_{steps}"
        Runner.from_cfg(config).train()
    scalars = read_scalars(tmp_path / "run")
    assert [step for step, _ in scalars["train/loss"]] == [2, 4, 6, 8, 10, 12]
    assert [step for step, _ in scalars["val/mIoU"]] == [4, 8, 12]
    assert [step for step, _ in scalars["val/loss"]] == [4, 8, 12]
    assert "| metric | last (step 12) | best | at step |" in (tmp_path / "run" / "results.md").read_text()
    assert (tmp_path / "run" / "curves.png").stat().st_size > 10_000
