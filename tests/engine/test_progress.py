"""The display shows a run on a terminal, hides nothing from the log, and leaves the terminal as it was."""

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from densevit.engine.progress import ProgressHook
from densevit.tables import print_table

SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


class Rows(Dataset[list[Tensor]]):
    metainfo = {"classes": ("even", "odd")}  # noqa: RUF012

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> list[Tensor]:
        return [torch.full((4,), index / len(self))]


class Line(BaseModel):
    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.line = nn.Linear(4, 1)
        self.fail_at, self.calls = fail_at, 0

    def forward(self, inputs: Tensor, mode: str = "tensor") -> Any:
        self.calls += 1
        if self.calls == self.fail_at:
            raise RuntimeError("no memory left")
        return {"loss": self.line(inputs).square().mean()} if mode == "loss" else [1.0] * len(inputs)


class Score(BaseMetric):
    def process(self, data_batch: Tensor, data_samples: list[float]) -> None:
        self.results += data_samples

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        print_table("IoU of each class", ["class", "IoU"], [["even", 0.25], ["odd", 0.75]])
        return {"mIoU": 0.5}


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)


@pytest.fixture
def make_runner(tmp_path: Path) -> Iterator[Callable[..., Runner]]:
    hooks = []

    def make(hook: ProgressHook, model: Line | None = None) -> Runner:
        hooks.append(hook)
        rows = Rows()
        return Runner(
            model or Line(),
            str(tmp_path),
            train_dataloader=DataLoader(rows, batch_size=2, sampler=InfiniteSampler(rows)),
            val_dataloader=DataLoader(Rows(), batch_size=5),
            train_cfg={"by_epoch": False, "max_iters": 8, "val_interval": 4},
            val_cfg={},
            val_evaluator=[Score()],
            optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.01}},
            default_hooks={"checkpoint": None, "logger": {"type": "LoggerHook", "interval": 2}},
            custom_hooks=[hook],
            log_processor={"by_epoch": False},
            visualizer={"type": "Visualizer", "vis_backends": [], "name": f"{tmp_path.name}-{len(hooks)}"},
            experiment_name=f"{tmp_path.name}-{len(hooks)}",
        )

    yield make
    for hook in hooks:
        hook.close()


def log_of(runner: Runner) -> str:
    return next(Path(runner.work_dir).glob("*/*.log")).read_text()


def test_the_display_shows_progress_loss_time_and_the_last_validation(make_runner: Any, console: Console) -> None:
    make_runner(ProgressHook(console)).train()
    last = console.file.getvalue().rsplit("train", 1)[1]
    assert "8/8 steps  100 %" in last
    assert "loss " in last
    assert "lr 1.00e-02" in last
    assert " ms: data " in last
    assert "val mIoU 0.5  (step 8)" in last


def test_validation_counts_images(make_runner: Any, console: Console) -> None:
    make_runner(ProgressHook(console)).val()
    assert "12/12 images  100 %" in console.file.getvalue()


def test_periodic_lines_go_to_the_log_only(make_runner: Any, console: Console) -> None:
    runner = make_runner(ProgressHook(console))
    runner.train()
    assert "Iter(train) [4/8]" in log_of(runner)
    assert "Iter(train)" not in console.file.getvalue()
    assert "mIoU: 0.5000" in console.file.getvalue()


def test_tables_are_drawn_on_the_terminal_and_aligned_in_the_log(make_runner: Any, console: Console) -> None:
    runner = make_runner(ProgressHook(console))
    runner.train()
    assert "odd    0.7500\n" in log_of(runner)
    assert "───" in console.file.getvalue()
    assert "  odd     0.7500" in console.file.getvalue()


def test_off_a_terminal_nothing_is_drawn_and_lines_are_printed(make_runner: Any, capsys: Any) -> None:
    make_runner(ProgressHook()).train()
    printed = capsys.readouterr().out
    assert "Iter(train) [4/8]" in printed
    assert "odd    0.7500" in printed
    assert "\x1b[?25l" not in printed
    assert "━" not in printed


def test_worker_ranks_draw_nothing(make_runner: Any, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("densevit.engine.progress.is_main_process", lambda: False)
    make_runner(ProgressHook(console)).train()
    assert console.file.getvalue() == ""


def test_after_a_run_the_terminal_and_the_logger_are_as_before(make_runner: Any, console: Console) -> None:
    runner = make_runner(ProgressHook(console))
    before, stdout = list(runner.logger.handlers), sys.stdout
    runner.train()
    assert set(runner.logger.handlers) == set(before)
    assert sys.stdout is stdout
    assert console.file.getvalue().rindex(SHOW_CURSOR) > console.file.getvalue().rindex(HIDE_CURSOR)


def test_a_failed_run_is_cleaned_up_by_close(make_runner: Any, console: Console) -> None:
    hook = ProgressHook(console)
    runner = make_runner(hook, Line(fail_at=3))
    before = list(runner.logger.handlers)
    with pytest.raises(RuntimeError, match="no memory left"):
        runner.train()
    hook.close()
    hook.close()
    assert set(runner.logger.handlers) == set(before)
    assert console.file.getvalue().rindex(SHOW_CURSOR) > console.file.getvalue().rindex(HIDE_CURSOR)


@pytest.mark.slow
def test_a_failed_run_gives_the_terminal_back_when_the_process_ends(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    program = (
        "import logging; from types import SimpleNamespace as N; from densevit.engine.progress import ProgressHook\n"
        "logger = logging.Logger('run'); logger.addHandler(logging.StreamHandler())\n"
        "ProgressHook().before_train(N(iter=3, max_iters=9, logger=logger))\n"
        "raise RuntimeError('no memory left')\n"
    )
    output = []
    read = pty.os.read

    def record(descriptor: int) -> bytes:
        output.append(read(descriptor, 1024))
        return output[-1]

    status = pty.spawn([sys.executable, "-c", f"import os; os.environ['TERM'] = 'xterm'\n{program}"], record)
    shown = b"".join(output).decode()
    assert status != 0
    assert "3/9 steps" in shown
    assert "no memory left" in shown
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR)


def simulate(seconds: list[tuple[float, float]], event: str | None = None) -> list[str]:
    """Let steps take these (loading, whole) seconds, the event happen after each 50th; return the warnings."""
    warnings: list[str] = []
    hub = MessageHub("simulated")
    runner = SimpleNamespace(
        iter=0,
        max_iters=len(seconds),
        message_hub=hub,
        logger=SimpleNamespace(warning=warnings.append),
        train_dataloader=SimpleNamespace(num_workers=2),
        val_dataloader=SimpleNamespace(dataset=Rows()),
    )
    hook = ProgressHook()
    hook.before_train(runner)
    for runner.iter, (loading, whole) in enumerate(seconds):
        hook.before_train_iter(runner, runner.iter)
        hub.update_scalar("train/data_time", loading)
        hub.update_scalar("train/time", whole)
        hook.after_train_iter(runner, runner.iter)
        if event == "validation" and runner.iter % 50 == 49:
            hook.before_val_epoch(runner)
            hook.after_val_epoch(runner, {})
        if event == "checkpoint" and runner.iter % 50 == 49:
            hook.before_save_checkpoint(runner, {})
    return warnings


@pytest.mark.parametrize(
    ("cores", "advice"),
    [(8, "raise train_dataloader.num_workers (now 2)"), (2, "2 workers on 2 cores cannot keep up")],
)
def test_slow_loading_is_reported_once_with_the_way_out(
    cores: int, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("densevit.engine.progress.os.cpu_count", lambda: cores)
    [warning] = simulate([(0.43, 1.0)] * 300)
    assert warning.startswith("data loading takes 43 % of the time: ")
    assert advice in warning


def test_loading_that_is_fast_enough_or_slow_at_first_is_not_reported() -> None:
    assert simulate([(0.19, 1.0)] * 300) == []
    assert simulate([(60.0, 61.0)] + [(0.1, 1.0)] * 300) == []


@pytest.mark.parametrize("event", ["validation", "checkpoint"])
def test_time_between_steps_is_not_taken_for_loading(event: str) -> None:
    seconds = [(0.1, 1.0)] * 300
    seconds[50::50] = [(60.0, 61.0)] * 5
    assert simulate(seconds, event) == []
    assert simulate(seconds) != []
