"""What a person sees of a run on a terminal: bars, the split of a step's time, the last validation.

mmengine prints a line every few steps. Elsewhere than on a terminal those lines are all there is.
"""

import atexit
import logging
import os
import sys
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from densevit.registry import HOOKS
from densevit.tables import rich_table

WINDOW = 100  # steps over which the split of the time is averaged
DATA_SHARE = 0.2  # of the time: the user is told when loading takes more
REFRESH = 0.1  # seconds


class TerminalHandler(logging.Handler):
    """Print records above the display, tables drawn; lines that only repeat the display are left out."""

    def __init__(self, console: Console, level: int) -> None:
        super().__init__(level)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        if _repeats_display(record):
            return
        try:
            if drawn := getattr(record, "table", None):
                self.console.print(rich_table(*drawn))
            else:
                self.console.print(self._line(record), soft_wrap=True)
        except Exception:
            self.handleError(record)

    def _line(self, record: logging.LogRecord) -> Text:
        line = Text.assemble((time.strftime("%H:%M:%S ", time.localtime(record.created)), "dim"))
        if record.levelno >= logging.WARNING:
            style = "yellow" if record.levelno == logging.WARNING else "bold red"
            return line.append(f"{record.levelname}: {self.format(record)}", style)
        return line.append(self.format(record))


def _repeats_display(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    periodic = message.startswith(("Iter(", "Epoch(")) and "  eta: " in message
    return periodic or message.startswith("Exp name: ")


@dataclass
class Bar:
    """``done`` of ``total`` units, and the seconds that the rest will take."""

    name: str
    total: int
    unit: str
    done: int = 0
    eta: float | None = None

    def __rich__(self) -> Table:
        left = "" if self.eta is None or self.done == self.total else f"ETA {timedelta(seconds=round(self.eta))}"
        count = f"{self.done}/{self.total} {self.unit}  {_percent(self.done / max(self.total, 1)):>5}  {left}"
        row = Table.grid(padding=(0, 1))
        row.add_row(Text(self.name.rjust(5), style="bold"), ProgressBar(self.total, self.done, width=24), count)
        return row


@HOOKS.register_module()
class ProgressHook(Hook):
    """Show progress on a terminal, in the main process; warn once, anywhere, when loading data holds up training.

    The display is drawn at the end of a step, by no thread of its own: workers may be forked at any time.

    Args:
        console: Where to; standard output unless given.
    """

    priority = "LOW"  # after the timer, whose values are read here

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(force_terminal=sys.stdout.isatty())
        self.training: Bar | None = None
        self.evaluation: Bar | None = None
        self.values = self.scores = ""
        self._durations: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self._interrupted = self._skip = self._warned = False
        self._drawn = 0.0
        self._live: Live | None = None
        self._cleanup = ExitStack()

    def before_train(self, runner: Any) -> None:
        self._interrupted = True
        self.training = Bar("train", runner.max_iters, "steps", runner.iter)
        self._open(runner)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        self._interrupted = True

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        # What happens between two steps is booked by mmengine's timer as loading of the next batch.
        self._skip, self._interrupted = self._interrupted, False

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if not self._skip:
            self._durations.append((_last(runner, "train/data_time"), _last(runner, "train/time")))
            self._warn_if_slow(runner)
        if self.training is not None and self._is_due(runner.iter + 1 == runner.max_iters):
            self.training.done = runner.iter + 1
            self.training.eta = runner.message_hub.get_info("eta")
            self.values = self._describe(runner)
            self._draw()

    def before_val_epoch(self, runner: Any) -> None:
        self._interrupted = True
        self._begin(runner, "val", len(runner.val_dataloader.dataset))

    def before_test_epoch(self, runner: Any) -> None:
        self._begin(runner, "test", len(runner.test_dataloader.dataset))

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._advance(runner, batch_idx + 1, len(runner.val_dataloader))

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._advance(runner, batch_idx + 1, len(runner.test_dataloader))

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        if self.training is not None:
            self.evaluation = None
            self.scores = f"{_summary(metrics or {})}  (step {runner.iter})"
            self._draw()

    def after_run(self, runner: Any) -> None:
        self.close()

    def before_stop(self, runner: Any) -> None:
        self.close()

    def close(self) -> None:
        """Leave the last state on the screen and give the terminal back; safe to call at any time."""
        self._cleanup.close()

    def _open(self, runner: Any) -> None:
        if self._live is not None or not (is_main_process() and self.console.is_interactive):
            return
        for plain in [h for h in runner.logger.handlers if type(h) is logging.StreamHandler]:
            self._replace(runner.logger, plain, TerminalHandler(self.console, plain.level))
        self._live = Live(
            get_renderable=self._render,
            console=self.console,
            auto_refresh=False,
            redirect_stderr=sys.stderr.isatty(),
        )
        self._cleanup.callback(setattr, self, "_live", None)
        self._cleanup.callback(self._live.stop)
        self._live.start(refresh=True)
        atexit.register(self.close)  # after_run is not called when a run fails
        self._cleanup.callback(atexit.unregister, self.close)

    def _replace(self, logger: logging.Logger, plain: logging.Handler, ours: logging.Handler) -> None:
        ours.filters = plain.filters
        logger.removeHandler(plain)
        logger.addHandler(ours)
        self._cleanup.callback(logger.addHandler, plain)
        self._cleanup.callback(logger.removeHandler, ours)

    def _begin(self, runner: Any, name: str, images: int) -> None:
        self.evaluation = Bar(name, images, "images")
        self._open(runner)
        self._draw()

    def _advance(self, runner: Any, batches: int, total: int) -> None:
        if self.evaluation is not None and self._is_due(batches == total):
            self.evaluation.done = self.evaluation.total * batches // total  # of all ranks
            self.evaluation.eta = runner.message_hub.get_info("eta")
            self._draw()

    def _is_due(self, last: bool) -> bool:
        return self._live is not None and (last or time.monotonic() - self._drawn > REFRESH)

    def _draw(self) -> None:
        if self._live is not None:
            self._live.refresh()
            self._drawn = time.monotonic()

    def _render(self) -> Group:
        lines: list[Bar | Text] = []
        if self.training is not None:
            lines.append(self.training)
        if self.values:
            lines.append(Text(f"      {self.values}"))
        if self.evaluation is not None:
            lines.append(self.evaluation)
        elif self.scores:
            lines.append(Text.assemble(("  val ", "bold"), self.scores))
        return Group(*lines)

    def _describe(self, runner: Any) -> str:
        parts = [f"loss {_last(runner, 'train/loss'):.4f}", f"lr {_last(runner, 'train/lr'):.2e}"]
        if self._durations:
            data, step = self._split()
            parts.append(
                f"step {1e3 * step:.0f} ms: data {1e3 * data:.0f} ms ({_percent(data / step)}), "
                f"compute {1e3 * (step - data):.0f} ms ({_percent(1 - data / step)})"
            )
        return "  ".join(parts)

    def _split(self) -> tuple[float, float]:
        """Return the mean seconds of loading and of a whole step."""
        data, step = (sum(times) / len(self._durations) for times in zip(*self._durations, strict=True))
        return data, max(step, 1e-9)

    def _warn_if_slow(self, runner: Any) -> None:
        if self._warned or len(self._durations) < WINDOW:
            return
        data, step = self._split()
        if data > DATA_SHARE * step:
            self._warned = True
            workers, cores = runner.train_dataloader.num_workers, os.cpu_count() or 1
            advice = f"raise train_dataloader.num_workers (now {workers})"
            if workers >= cores:
                advice = (
                    f"{workers} workers on {cores} cores cannot keep up, smaller or less compressed files would help"
                )
            runner.logger.warning(f"data loading takes {_percent(data / step)} of the time: {advice}")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _last(runner: Any, name: str) -> float:
    scalars = runner.message_hub.log_scalars
    return float(scalars[name].current()) if name in scalars else float("nan")


def _summary(metrics: dict[str, float]) -> str:
    names = [name for name in metrics if "loss" not in name][:3] + [name for name in metrics if name == "loss"]
    return "  ".join(f"{name} {metrics[name]:.4g}" for name in names)
