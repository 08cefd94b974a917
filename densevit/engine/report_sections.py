"""The parts of report.html."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from densevit.engine.curves import Scalars
from densevit.engine.evaluation_record import EvaluationRecord
from densevit.engine.html_page import figure, folded, grid, heading, html_table, paragraph, photograph
from densevit.engine.run_summary import Timing, clock, facts_of, scores_of, timing_of
from densevit.engine.sample_gallery import Shown

NO_VALIDATION = "None: the run had no validation."
REPORT_THE_LAST = "Report the last: the best was chosen on the split that it is measured on."
KINDS = {"worst": "Worst samples", "best": "Best samples", "spread": "Samples spread evenly over the split"}


def training_section(scalars: Scalars, start: Mapping[str, Any], curves: Sequence[Path]) -> str:
    """Return scores, facts, curves and timing of a training, as far as it is logged."""
    parts = [heading("Training"), heading("Validation scores", 3), *_scores(scalars)]
    parts += [heading("Run", 3), html_table(("", ""), list(facts_of(scalars, start)))]
    parts += [figure(path.read_bytes(), "Curves of loss, learning rate and metrics over the steps") for path in curves]
    if timing := timing_of(scalars, start):
        parts += [heading("Time", 3), *_timing(timing)]
    return "\n".join(parts)


def _scores(scalars: Scalars) -> Iterator[str]:
    if not (scores := scores_of(scalars)):
        yield paragraph(NO_VALIDATION)
        return
    rows = [(s.name, f"{s.last:.4f}", f"{s.best:.4f}", s.best_step) for s in scores]
    yield html_table(("metric", f"last (step {scores[0].last_step})", "best", "at step"), rows)
    yield paragraph(REPORT_THE_LAST)


def _timing(timing: Timing) -> Iterator[str]:
    total = timing.training + timing.validation
    compute = timing.step - timing.step_data
    rows = [
        ("waiting for data", _milliseconds(timing.step_data), *_part(timing.training_data, total)),
        ("forward, backward, update", _milliseconds(compute), *_part(timing.training - timing.training_data, total)),
    ]
    if timing.validation:
        rows.append((f"{timing.validations} validations", "", *_part(timing.validation, total)))
    rows.append(("total", _milliseconds(timing.step), *_part(total, total)))
    yield html_table(("", "per step (median)", "in all", "share"), rows)
    yield paragraph(
        "Estimated from the times that were logged, over all starts of the run; start-up, writing of checkpoints and "
        "the computation of metrics after the last batch are not in it."
    )


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.0f} ms"


def _part(seconds: float, total: float) -> tuple[str, str]:
    return clock(seconds), f"{seconds / max(total, 1e-9):.0%}"


def evaluation_section(
    title: str,
    facts: Mapping[str, str],
    record: EvaluationRecord,
    pictures: Sequence[Path],
    shown: Mapping[str, list[Shown]],
) -> str:
    """Return results, tables, pictures of metrics, and samples of an evaluation.

    Args:
        title: Of the section.
        facts: What else is to be told of it.
        record: Of the main process.
        pictures: Files of the metrics.
        shown: The samples, by `KINDS`.
    """
    data = record.loop.dataloader.dataset
    rows = [*facts.items(), ("samples", str(len(data))), ("time", clock(record.seconds))]
    parts = [heading(title), html_table(("", ""), rows)]
    if record.metrics:
        scores = [(name, f"{value:.4f}") for name, value in record.metrics.items()]
        parts.append(html_table(("metric", "value"), scores))
    parts += [html_table(columns, rows, name) for name, columns, rows in record.tables]
    parts += [figure(path.read_bytes(), path.stem, path.stem.replace("_", " ")) for path in pictures]
    for kind, name in KINDS.items():
        if samples := shown.get(kind):
            ranked = f", by {record.score_name}" if kind != "spread" else ""
            parts += [heading(name + ranked, 3), grid(_sample(sample, record.score_name) for sample in samples)]
    return "\n".join(parts)


def _sample(sample: Shown, score_name: str | None) -> str:
    known = score_name is not None and sample.score == sample.score  # which NaN is not
    score = f"{score_name} {sample.score:.4f}: " if known else ""
    return photograph(sample.picture, f"Input, truth and prediction of {sample.path}", score + sample.path)


def setup_section(environment: Mapping[str, Any], cfg: Config) -> str:
    """Return what it was done with: the command, versions, device, and the whole config."""
    rows = [
        ("command", environment["command"]),
        ("started", environment["started"]),
        ("device", environment["device"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in environment["versions"].items())),
        ("commit", environment["commit"] or "unknown"),
    ]
    parts = [heading("Environment"), html_table(("", ""), rows), heading("Config")]
    return "\n".join([*parts, folded("the whole config, bases and options included", cfg.pretty_text)])
