"""What is logged becomes curves, a summary and pictures, over resumed runs; failing at that loses nothing."""

import json
import logging
import re
from collections.abc import Callable
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
from torch.utils.data import DataLoader

from densevit.data.dataset import DenseDataset
from densevit.data.readers import read_image
from densevit.engine.curves import plot_curves, read_scalars, smooth
from densevit.engine.html_page import sections_of
from densevit.engine.report import ReportHook
from densevit.engine.run_summary import scores_of
from densevit.engine.runner import Runner
from densevit.errors import ConfigError, DataError
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


class Metric:
    """It draws, prints, and scores samples by the number in their names."""

    score_name = "number"

    def __init__(self) -> None:
        self.batch_scores: list[float] = []

    def process(self, data_batch: list[Sample]) -> None:
        self.batch_scores = [float(sample.meta.path[-5]) for sample in data_batch]

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

    def path(self, index: int) -> str:
        return str(self.paths[index])

    def read(self, index: int) -> tuple[Tensor, SegTarget, str]:
        target = SegTarget(torch.zeros(20, 30, dtype=torch.long))
        return read_image(self.paths[index]), target, str(self.paths[index])

    def sample(self, index: int) -> Sample:
        _, target, path = self.read(index)
        return Sample(torch.zeros(3, 20, 30), target, Meta(path, (20, 30), (20, 30)))


def evaluate(hook: ReportHook, runner: Any, mode: str = "val", lacking: int = 0) -> None:
    """Do what an evaluation does that predicts "road" everywhere and cannot read one sample."""
    loop = getattr(runner, f"{mode}_loop")
    getattr(hook, f"before_{mode}_epoch")(runner)
    for i in set(range(9)) - {lacking}:
        batch = [loop.dataloader.dataset.sample(i)]
        loop.evaluator.metrics[0].process(batch)
        predictions = [Prediction(torch.ones(20, 30, dtype=torch.long))]
        getattr(hook, f"after_{mode}_iter")(runner, i, batch, predictions)
    record = logging.LogRecord("report", logging.INFO, "", 0, "", (), None)
    record.table = ("classes", ["class", "IoU %"], [("<sky>", 12.5)])
    runner.logger.handle(record)
    getattr(hook, f"after_{mode}_epoch")(runner, {"mIoU": 0.123})


@pytest.fixture
def runner(tmp_path: Path) -> SimpleNamespace:
    lines = [train_line(50), val_line(50, 0.7), train_line(100), val_line(100, 0.6)]
    log(tmp_path / "run", "20260101_000000", lines)
    loader = DataLoader(Scenes(tmp_path), batch_size=4)  # type: ignore[arg-type]
    loop = SimpleNamespace(dataloader=loader, evaluator=SimpleNamespace(metrics=[Metric(), 0]))
    return SimpleNamespace(
        work_dir=str(tmp_path / "run"),
        log_dir=str(tmp_path / "run" / "20260101_000000"),
        cfg=Config(
            {"model": {"type": "<Net>"}, "load_from": "iter_100.pth"}, cfg_text="-", filename="configs/mit_shapes.py"
        ),
        model=nn.Linear(9, 1),  # 10 parameters
        train_loop=loop,
        val_loop=loop,
        test_loop=loop,
        iter=100,
        max_iters=100,
        seed=3,
        world_size=1,
        logger=logging.getLogger("report"),
    )


def test_a_metric_that_never_had_a_value_has_no_curve_and_nan_is_not_the_best(tmp_path: Path) -> None:
    scalars = {"train/loss": [(1, 2.0), (2, 1.0)], "val/AP": [(1, float("nan")), (2, 0.5)]}
    plot_curves({"run": scalars}, tmp_path / "one.png")
    plot_curves({"run": {**scalars, "val/APl": [(1, float("nan")), (2, float("nan"))]}}, tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert [(score.best, score.best_step) for score in scores_of(scalars)] == [(0.5, 2)]


def test_the_summary_holds_last_and_best_scores_costs_and_origin(runner: Any) -> None:
    ReportHook().after_train(runner)
    text = (Path(runner.work_dir) / "results.md").read_text()
    assert "| metric | last (step 100) | best | at step |" in text
    assert "| mIoU | 0.6000 | 0.7000 | 50 |" in text
    assert "| time per step | 400 ms, 25% of it loading data (medians) |" in text
    assert "| training time | 0:00:40, without validation |" in text
    assert "| throughput | 10.0 samples/s |" in text
    assert "| config | mit_shapes.py |" in text
    assert "| parameters | 0.00 M |" in text
    assert "| seed | 3 |" in text
    assert f"torch {torch.__version__}" in text
    assert "![curves](curves.png)" in text


def test_the_page_tells_scores_time_classes_samples_and_setup(runner: Any) -> None:
    hook = ReportHook(num_samples=2)
    hook.before_train(runner)
    evaluate(hook, runner)
    hook.after_train(runner)
    page = (Path(runner.work_dir) / "report.html").read_text()
    sections = sections_of(page)
    assert list(sections) == ["training", "validation", "setup"]
    assert "<td>mIoU</td>" in sections["training"]
    assert '<td>waiting for data</td><td class="right">100</td><td>0:00:10</td><td class="right">11</td>' in page
    # two validations of three batches of 9 s
    assert '<td>2 validations</td><td class="right">-</td><td>0:00:54</td><td class="right">57</td>' in page
    assert '<td>&lt;sky&gt;</td><td class="right">12.50</td>' in sections["validation"]
    shown = re.findall(r"<figcaption>(?:number (\S+): )?\S*scene(\d).png</figcaption>", sections["validation"])
    worst, best, spread = ["1", "2"], ["8", "7"], ["8"]  # 0, which is spread too, cannot be read
    assert [number for _, number in shown] == worst + best + spread
    assert [score for score, _ in shown] == [f"{int(number)}.0000" for _, number in shown]
    assert f"torch {torch.__version__}" in sections["setup"]
    assert "&lt;Net&gt;" in sections["setup"]


def test_a_test_adds_its_part_and_keeps_that_of_the_training(runner: Any) -> None:
    hook = ReportHook()
    hook.before_train(runner)
    evaluate(hook, runner)
    hook.after_train(runner)
    page = Path(runner.work_dir) / "report.html"
    before = sections_of(page.read_text())
    for _ in range(2):
        later = ReportHook()
        evaluate(later, runner, "test")
        later.after_test(runner)
    after = sections_of(page.read_text())
    assert list(after) == ["training", "validation", "test", "setup"]
    assert all(after[name] == before[name] for name in before)
    assert "<td>iter_100.pth</td>" in after["test"]
    assert "<td>0.1230</td>" in after["test"].replace(' class="right"', "")


def test_a_training_that_was_stopped_is_in_the_report_of_its_test(runner: Any) -> None:
    ReportHook().before_train(runner)  # and no after_train
    hook = ReportHook()
    evaluate(hook, runner, "test")
    hook.after_test(runner)
    assert "Curves of loss" in sections_of((Path(runner.work_dir) / "report.html").read_text())["training"]


def test_the_best_loss_is_the_lowest(runner: Any) -> None:
    log(
        Path(runner.work_dir), "20260102_000000", [{**val_line(60, 0.1), "loss": 0.5}, {**val_line(70, 0.1), "loss": 4}]
    )
    ReportHook().after_train(runner)
    assert "| loss | 2.0000 | 0.5000 | 60 |" in (Path(runner.work_dir) / "results.md").read_text()


def test_pictures_show_input_truth_and_prediction(runner: Any) -> None:
    hook = ReportHook(num_samples=3)
    evaluate(hook, runner)
    hook.after_train(runner)
    folder = Path(runner.work_dir) / "predictions"
    assert sorted(p.name for p in folder.iterdir()) == ["00004_scene4.png", "00008_scene8.png"]  # 0 cannot be read
    picture = np.array(Image.open(folder / "00004_scene4.png"))
    place = 8
    for colour in [(0, 128, 0), (0, 0, 255), (90, 90, 90)]:
        place += int((picture[24, place:] == colour).all(-1).argmax())  # captions may be wider than the pictures
        assert (picture[24:44, place : place + 30] == colour).all()
    assert (picture[:24] != 255).any()  # captions


def test_what_metrics_draw_is_written_after_a_training_and_after_a_test(runner: Any) -> None:
    folder = Path(runner.work_dir)
    ReportHook().after_train(runner)
    assert np.asarray(Image.open(folder / "val_confusion.png")).shape == (5, 5, 3)
    assert "![val_confusion](val_confusion.png)" in (folder / "results.md").read_text()
    runner.test_loop = runner.val_loop
    ReportHook().after_test(runner)
    assert (np.asarray(Image.open(folder / "confusion.png")) == 9).all()


def test_a_failing_report_is_a_warning_and_the_training_kept(
    runner: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("densevit.engine.report.setup_section", lambda *args: 1 / 0)
    ReportHook().after_train(runner)
    ReportHook().after_test(runner)
    assert caplog.text.count("the report could not be written, nothing else is affected: ZeroDivisionError") == 2
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert (Path(runner.work_dir) / "curves.png").exists()


def test_a_prediction_that_cannot_be_drawn_costs_its_picture_only(
    runner: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Prediction, "draw", lambda *args: 1 / 0)
    hook = ReportHook()
    evaluate(hook, runner)
    hook.after_train(runner)
    assert "samples could not be drawn for the report: ZeroDivisionError" in caplog.text
    page = (Path(runner.work_dir) / "report.html").read_text()
    assert "Worst samples" not in page
    assert "12.50" in page


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


def test_a_training_and_its_continuation_leave_one_report(
    config: Config, tmp_path: Path, parse_page: Callable[[str], Any]
) -> None:
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
    page = parse_page((tmp_path / "run" / "report.html").read_text())
    assert "Validation at step 12" in page.text
    assert page.text.count("Worst samples, by mean IoU") == 1
    assert "RandomCategoryCrop" in page.text  # of the config
    assert len(page.alternatives) == 1 + 1 + 4 + 1 + 4  # curves, confusion; of five samples the worst, the best, spread
    assert (tmp_path / "run" / "curves.png").stat().st_size > 10_000


def test_a_run_without_report_and_progress(config: Config, tmp_path: Path) -> None:
    config.default_hooks.report = config.default_hooks.progress = None
    config.work_dir = str(tmp_path / "run")
    Runner.from_cfg(config).train()
    assert not (tmp_path / "run" / "report.html").exists()
    assert (tmp_path / "run" / "iter_8.pth").is_file()


@pytest.mark.parametrize("name", ["miou", "loss"])
def test_a_wrong_best_metric_is_told_before_the_first_step(config: Config, tmp_path: Path, name: str) -> None:
    config.default_hooks.checkpoint.save_best = name
    config.work_dir = str(tmp_path / "run")
    with pytest.raises(ConfigError, match=f"save_best='{name}' is not a metric of which more is better.*mIoU"):
        Runner.from_cfg(config).train()
    assert not list((tmp_path / "run").glob("*.pth"))
