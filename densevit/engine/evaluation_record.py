"""What one evaluation, a validation or a test, leaves for its report."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from densevit.engine.sample_gallery import SampleGallery, Shown, merge
from densevit.structures import Sample
from densevit.tables import Cell

Table = tuple[str, Sequence[str], Sequence[Sequence[Cell]]]  # title, columns, rows


class EvaluationRecord:
    """Begun before an evaluation, told of every batch after the metrics were, and ended with their results.

    A metric that says how good each sample is has, after ``process``, a list of ``batch_scores``, the more the better,
    and a ``score_name``; the first one that has is asked.

    Args:
        loop: Evaluates.
        logger: Of the run: the tables that metrics print through it are kept.
        num_samples: How many of the worst, of the best and of those spread over the split to keep.

    Attributes:
        metrics: The results.
        tables: What was printed.
        seconds: That the evaluation took.
        score_name: Of the scores of samples; None without.
    """

    def __init__(self, loop: Any, logger: Any, num_samples: int) -> None:
        self.loop, self.num_samples = loop, num_samples
        self.gallery = SampleGallery(loop.dataloader.dataset, num_samples)
        self.metrics: dict[str, float] = {}
        self.tables: list[Table] = []
        self.seconds = 0.0
        self.score_name: str | None = None
        self._scorer = next((m for m in loop.evaluator.metrics if hasattr(m, "batch_scores")), None)
        self._begun = time.monotonic()
        self._logger, self._listener = logger, _TableListener(self.tables)
        logger.addHandler(self._listener)

    def add(self, samples: Sequence[Sample], predictions: Sequence[Any]) -> None:
        """Take note of a batch that the metrics have processed."""
        scores = [math.nan] * len(samples)
        if self._scorer is not None:
            scores, self.score_name = self._scorer.batch_scores, self._scorer.score_name
        self.gallery.add(samples, predictions, scores)

    def end(self, metrics: Mapping[str, float] | None) -> None:
        """Take the results."""
        self.metrics = {name: float(value) for name, value in (metrics or {}).items()}
        self.seconds = time.monotonic() - self._begun
        self._logger.removeHandler(self._listener)


def gather_samples(record: EvaluationRecord | None, logger: Any) -> dict[str, list[Shown]]:
    """Return the drawn samples of all processes; each must call it, also one that has no record."""
    own: dict[str, list[Shown]] = {}
    if record is not None:
        try:
            own = record.gallery.draw()
        except Exception as error:  # the others wait in what comes next
            logger.warning(f"samples could not be drawn for the report: {type(error).__name__}: {error}")
    return merge(own, 0 if record is None else record.num_samples)


class _TableListener(logging.Handler):
    """Keeps what `densevit.tables.print_table` logs."""

    def __init__(self, tables: list[Table]) -> None:
        super().__init__()
        self._tables = tables

    def emit(self, record: logging.LogRecord) -> None:
        if table := getattr(record, "table", None):
            self._tables.append(table)
