"""The parts of report.html."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from densevit.engine.curves import Scalars
from densevit.engine.evaluation_record import EvaluationRecord
from densevit.engine.html_page import figure, figures_in_rows, folded, heading, html_table, paragraph, photograph
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
    rows = [(s.name, _score(s.last), _score(s.best), s.best_step) for s in scores]
    yield html_table(("metric", f"last (step {scores[0].last_step})", "best", "at step"), rows)
    yield paragraph(REPORT_THE_LAST)


def _score(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _timing(timing: Timing) -> Iterator[str]:
    total = timing.training + timing.validation
    compute = timing.step - timing.step_data
    rows = [
        ("waiting for data", f"{1e3 * timing.step_data:.0f}", *_part(timing.training_data, total)),
        ("forward, backward, update", f"{1e3 * compute:.0f}", *_part(timing.training - timing.training_data, total)),
    ]
    if timing.validation:
        count = f"{timing.validations} validation{'s' * (timing.validations > 1)}"
        rows.append((count, "-", *_part(timing.validation, total)))
    rows.append(("total", f"{1e3 * timing.step:.0f}", *_part(total, total)))
    yield html_table(("", "ms per step (median)", "in all", "share %"), rows)
    yield paragraph(
        "Estimated from the times that were logged, over all starts of the run; start-up, writing of checkpoints and "
        "the computation of metrics after the last batch are not in it."
    )


def _part(seconds: float, total: float) -> tuple[str, str]:
    return clock(seconds), f"{100 * seconds / max(total, 1e-9):.0f}"


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
        scores = [(name, _score(value)) for name, value in record.metrics.items()]
        parts.append(html_table(("metric", "value"), scores))
    parts += [html_table(columns, rows, name) for name, columns, rows in record.tables]
    for path in pictures:
        name = path.stem.removeprefix("val_").replace("_", " ")
        parts.append(figure(path.read_bytes(), name, name))
    for kind, name in KINDS.items():
        if samples := shown.get(kind):
            ranked = f", by {record.score_name}" if kind != "spread" else ""
            parts += [
                heading(name + ranked, 3),
                figures_in_rows(_sample(sample, record.score_name) for sample in samples),
            ]
    return "\n".join(parts)


def _sample(sample: Shown, score_name: str | None) -> str:
    score = f"{score_name} {sample.score:.4f}: " if score_name and not math.isnan(sample.score) else ""
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
