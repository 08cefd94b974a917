"""What a training and a test leave for people: report.html, results.md, curves.png and pictures of samples."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from PIL import Image

from densevit.engine.curves import Scalars, plot_curves, read_scalars
from densevit.engine.environment import describe_environment
from densevit.engine.evaluation_record import EvaluationRecord, gather_samples
from densevit.engine.html_page import page, sections_of
from densevit.engine.report_sections import (
    NO_VALIDATION,
    REPORT_THE_LAST,
    evaluation_section,
    setup_section,
    training_section,
)
from densevit.engine.run_summary import config_name, describe_start, facts_of, read_start, scores_of, write_start
from densevit.engine.sample_gallery import Shown
from densevit.registry import HOOKS
from densevit.structures import Sample
from densevit.tables import markdown_table

REPORT, SUMMARY, CURVES = "report.html", "results.md", "curves.png"
SECTIONS = ("training", "validation", "test", "setup")  # of the page, in this order


@HOOKS.register_module()
class ReportHook(Hook):
    """After training and after each test, write report.html; after training also results.md, curves and samples.

    The page tells of the training as far as it is logged in the folder, of the last validation and of the last test;
    each writes its own part and leaves the others as they are. Pictures of metrics, the confusion of classes for one,
    are files too, those of validation begin with ``val_``. Nothing here ends a run: what fails is a warning.

    Args:
        num_samples: How many of the worst, of the best, and of samples spread evenly over the split to show.
    """

    priority = "LOWEST"  # after the last checkpoint

    def __init__(self, num_samples: int = 4) -> None:
        self.num_samples = num_samples
        self.start: dict[str, Any] = {}
        self.record: EvaluationRecord | None = None

    def before_train(self, runner: Any) -> None:
        if is_main_process():
            with _harmless(runner):
                self.start = write_start(runner)

    def before_val_epoch(self, runner: Any) -> None:
        self._begin(runner, runner.val_loop)

    def before_test_epoch(self, runner: Any) -> None:
        self._begin(runner, runner.test_loop)

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: list[Sample] | None = None, outputs: Any = None
    ) -> None:
        self._add(runner, data_batch or [], outputs or [])

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: list[Sample] | None = None, outputs: Any = None
    ) -> None:
        self._add(runner, data_batch or [], outputs or [])

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        if self.record is not None:
            self.record.end(metrics)

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        if self.record is not None:
            self.record.end(metrics)

    def after_train(self, runner: Any) -> None:
        shown = gather_samples(self.record, runner.logger)
        if is_main_process():
            with _harmless(runner):
                self._report_training(runner, shown)

    def after_test(self, runner: Any) -> None:
        shown = gather_samples(self.record, runner.logger)
        if is_main_process():
            with _harmless(runner):
                self._report_test(runner, shown)

    def _begin(self, runner: Any, loop: Any) -> None:
        self.record = None
        with _harmless(runner):
            self.record = EvaluationRecord(loop, runner.logger, self.num_samples)

    def _add(self, runner: Any, samples: Sequence[Sample], predictions: Sequence[Any]) -> None:
        record, self.record = self.record, None
        if record is not None:
            with _harmless(runner):
                record.add(samples, predictions)
                self.record = record  # one that has failed once is given up

    def _report_training(self, runner: Any, shown: Mapping[str, list[Shown]]) -> None:
        folder = Path(runner.work_dir)
        scalars = read_scalars(folder)
        start = {**(self.start or describe_start(runner)), "at_step": runner.iter}
        curves = _plot(folder, scalars)
        pictures = [] if runner.val_loop is None else write_pictures(runner.val_loop.evaluator, folder, "val_")
        samples = _write_samples(shown["spread"], folder / "predictions")
        (folder / SUMMARY).write_text(_summarise(folder, scalars, start, [*curves, *pictures, *samples]))
        sections = {"training": training_section(scalars, start, curves), "setup": setup_section(start, runner.cfg)}
        if self.record is not None:
            title = f"Validation at step {runner.iter}"
            sections["validation"] = evaluation_section(title, {}, self.record, pictures, shown)
        _write_page(folder, start["config"], sections)
        count = len(curves + pictures + samples)
        runner.logger.info(f"wrote {folder / REPORT}, {SUMMARY} and {count} pictures")

    def _report_test(self, runner: Any, shown: Mapping[str, list[Shown]]) -> None:
        folder = Path(runner.work_dir)
        pictures = write_pictures(runner.test_loop.evaluator, folder)
        environment = describe_environment()
        sections: dict[str, str] = {}
        if "setup" not in _sections_in(folder):
            sections["setup"] = setup_section(environment, runner.cfg)
        scalars, start = read_scalars(folder), read_start(folder)
        if scalars and start:  # also of a training that did not come to its end
            sections["training"] = training_section(scalars, start, _plot(folder, scalars))
        if self.record is not None:
            names = ("started", "command")
            facts = {"checkpoint": str(runner.cfg.get("load_from")), **{name: environment[name] for name in names}}
            sections["test"] = evaluation_section("Test", facts, self.record, pictures, shown)
        _write_page(folder, config_name(runner), sections)
        for path in (*pictures, folder / REPORT):
            runner.logger.info(f"wrote {path}")


@contextmanager
def _harmless(runner: Any) -> Iterator[None]:
    """Log a failure: no report is worth a run."""
    try:
        yield
    except Exception as error:
        runner.logger.warning(
            f"the report could not be written, nothing else is affected: {type(error).__name__}: {error}", exc_info=True
        )


def write_pictures(evaluator: Any, folder: Path, prefix: str = "") -> list[Path]:
    """Write what metrics with a method ``pictures() -> {name: (H, W, 3) uint8}`` draw to ``<prefix><name>.png``."""
    written = []
    for metric in evaluator.metrics:
        for name, picture in metric.pictures().items() if hasattr(metric, "pictures") else ():
            folder.mkdir(parents=True, exist_ok=True)
            written.append(folder / f"{prefix}{name}.png")
            Image.fromarray(picture).save(written[-1])
    return written


def _plot(folder: Path, scalars: Scalars) -> list[Path]:
    """Draw the curves; nothing where none were logged."""
    if not scalars:
        return []
    plot_curves({folder.name: scalars}, folder / CURVES)
    return [folder / CURVES]


def _write_samples(samples: Sequence[Shown], folder: Path) -> list[Path]:
    for shown in samples:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / shown.file_name).write_bytes(shown.picture)
    return [folder / shown.file_name for shown in samples]


def _sections_in(folder: Path) -> dict[str, str]:
    path = folder / REPORT
    return sections_of(path.read_text()) if path.is_file() else {}


def _write_page(folder: Path, name: str, sections: Mapping[str, str]) -> None:
    """Write the page; sections that are not given stay as they are."""
    merged = {**_sections_in(folder), **sections}
    title = f"Results of {name}"
    (folder / REPORT).write_text(page(title, {key: merged[key] for key in SECTIONS if key in merged}))


def _summarise(folder: Path, scalars: Scalars, start: Mapping[str, Any], pictures: Sequence[Path]) -> str:
    parts = [
        f"# Results of {start['config']}",
        "## Validation",
        *_score_table(scalars),
        "## Run",
        markdown_table(("", ""), list(facts_of(scalars, start))),
        *(f"![{p.stem}]({quote(p.relative_to(folder).as_posix())})" for p in pictures),
    ]
    return "\n\n".join(parts) + "\n"


def _score_table(scalars: Scalars) -> Iterator[str]:
    if not (scores := scores_of(scalars)):
        yield NO_VALIDATION
        return
    rows = [(s.name, f"{s.last:.4f}", f"{s.best:.4f}", str(s.best_step)) for s in scores]
    yield markdown_table(("metric", f"last (step {scores[0].last_step})", "best", "at step"), rows)
    yield REPORT_THE_LAST
