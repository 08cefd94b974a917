"""Several runs side by side: what they are, how well they do, what they cost."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from densevit.engine.complexity import complexity, usual_size
from densevit.engine.config import check_config
from densevit.engine.curves import Scalars
from densevit.engine.run_summary import clock, last_step, read_start, samples_per_second, scores_of, timing_of
from densevit.errors import DensevitError
from densevit.registry import MODELS

UNKNOWN = "-"


def compare(runs: Mapping[str, tuple[Path, Scalars]]) -> tuple[list[str], list[list[str]]]:
    """Return the names of the columns and a row for each run; what is not known of any run has no column.

    Of the metrics of a run, its first is shown, of the last validation and of the best one.

    Args:
        runs: By name, the folder and what `read_scalars` finds in it.
    """
    table = [{"run": name, **dict(_facts(folder, scalars))} for name, (folder, scalars) in runs.items()]
    columns = list(dict.fromkeys(column for row in table for column in row))
    return columns, [[row.get(column, UNKNOWN) for column in columns] for row in table]


def _facts(folder: Path, scalars: Scalars) -> Iterator[tuple[str, str]]:
    start = read_start(folder)
    if start:
        yield "config", start["config"]
        yield "parameters", f"{start['parameters'] / 1e6:.2f} M"
        if macs := _macs(start["model"]):
            yield "MACs", macs
    yield "steps", str(last_step(scalars))
    if timing := timing_of(scalars, start):
        yield "time", clock(timing.training + timing.validation)
        if rate := samples_per_second(timing, start):
            yield "samples/s", f"{rate:.1f}"
    if memory := scalars.get("train/memory"):
        yield "memory", f"{max(value for _, value in memory) / 1024:.1f} GiB"
    if start:
        yield "batch", f"{start['batch_size']} x {start['processes']}"
        yield "device", start["device"]
    if scores := scores_of(scalars):
        main = scores[0]
        yield f"{main.name}, last", f"{main.last:.4f}"
        yield f"{main.name}, best (at step)", f"{main.best:.4f} ({main.best_step})"


def _macs(options: Mapping[str, Any]) -> str | None:
    """Return the multiply-accumulates of a model for the usual input; None where it is of modules not imported here."""
    cfg = Config({"model": options})
    try:
        check_config(cfg)
        model = MODELS.build(cfg.model)
    except DensevitError:
        return None
    size: Sequence[int] = usual_size(model.backbone)
    total = complexity(model, size, model.backbone.in_channels)[0]
    return f"{total.macs / 1e9:.2f} G at {' x '.join(map(str, size))}"
