"""What is known of a training from its folder: how it was started, its scores, where its time went."""

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from densevit.engine.curves import Scalars, metric_names
from densevit.engine.environment import describe_environment
from densevit.engine.plain_config import to_plain

START = "start.json"  # beside the log of each start of a training
LESS_IS_BETTER = ("loss", "error", "hd95", "asd", "distance")


def describe_start(runner: Any) -> dict[str, Any]:
    """Return, as plain values, what is trained, how, with what and on what."""
    loader, validation = runner.train_loop.dataloader, runner.val_loop
    return {
        "config": config_name(runner),
        "at_step": runner.iter,
        "max_steps": runner.max_iters,
        "parameters": sum(p.numel() for p in runner.model.parameters()),
        "batch_size": loader.batch_sampler.batch_size,
        "processes": runner.world_size,
        "validation_batches": 0 if validation is None else len(validation.dataloader),
        "seed": runner.seed,
        **describe_environment(),
        "model": to_plain({key: value for key, value in runner.cfg.model.items() if key != "weights"}),
    }


def config_name(runner: Any) -> str:
    """Return what a run is called: the name of its config, else of its folder."""
    return Path(runner.cfg.filename or runner.work_dir).name


def write_start(runner: Any) -> dict[str, Any]:
    """Write the description of a start beside its log, and return it."""
    start = describe_start(runner)
    path = Path(runner.log_dir) / START
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(start, indent=1))
    return start


def read_start(work_dir: Path) -> dict[str, Any]:
    """Return the description of the last start of a training in a folder; nothing where none can be read."""
    for path in sorted(work_dir.glob(f"*/{START}"), reverse=True):
        try:
            start = json.loads(path.read_text())
        except (OSError, ValueError):
            continue  # the process was killed as it wrote
        if isinstance(start, dict):
            return start
    return {}


@dataclass(frozen=True)
class Score:
    """A metric over a training: its last value and its best one, with the steps of both."""

    name: str
    last: float
    last_step: int
    best: float
    best_step: int


def scores_of(scalars: Scalars) -> list[Score]:
    """Return the metrics that were validated, in the order of the log, and the loss."""
    scores = []
    for name in [*metric_names(scalars), *(["loss"] if "val/loss" in scalars else [])]:
        points = scalars[f"val/{name}"]
        choose = min if any(word in name.lower() for word in LESS_IS_BETTER) else max
        defined = [point for point in points if not math.isnan(point[1])]  # NaN is neither less nor greater
        best_step, best = choose(defined or points, key=lambda point: point[1])
        scores.append(Score(name, points[-1][1], points[-1][0], best, best_step))
    return scores


def last_step(scalars: Scalars) -> int:
    """Return the last step that was logged, 0 where none was."""
    return max((points[-1][0] for points in scalars.values()), default=0)


@dataclass(frozen=True)
class Timing:
    """Where the time of a training went, in seconds, from the log: resumed runs add up.

    Attributes:
        step: Of a step, the median.
        step_data: Of it, waiting for data; the median.
        training: Of all steps, by the means that were logged.
        training_data: Of all steps, waiting for data.
        validations: Their number.
        validation: Of all of them, without the computation of the metrics at their end; 0 where it is not known.
    """

    step: float
    step_data: float
    training: float
    training_data: float
    validations: int
    validation: float


def timing_of(scalars: Scalars, start: Mapping[str, Any]) -> Timing | None:
    """Return where the time went; None where no step was logged."""
    steps, data = scalars.get("train/time"), scalars.get("train/data_time")
    if not steps or not data:
        return None
    validations = scalars.get("val/time", [])
    return Timing(
        step=statistics.median(seconds for _, seconds in steps),
        step_data=statistics.median(seconds for _, seconds in data),
        training=_total(steps),
        training_data=_total(data),
        validations=len(validations),
        validation=sum(seconds for _, seconds in validations) * start.get("validation_batches", 0),
    )


def _total(means: Sequence[tuple[int, float]]) -> float:
    """Return the sum over all steps of what was logged as the mean of the last ones."""
    starts = [0, *(at for at, _ in means[:-1])]
    return sum(value * (at - start) for (at, value), start in zip(means, starts, strict=True))


def samples_per_second(timing: Timing | None, start: Mapping[str, Any]) -> float | None:
    """Return the throughput of training, of all processes together, by the median step; None where it is not known."""
    if timing is None or timing.step <= 0 or not start.get("batch_size"):
        return None
    return float(start["batch_size"] * start["processes"] / timing.step)


def facts_of(scalars: Scalars, start: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a run is and cost, as names and texts."""
    yield "config", start["config"]
    yield "steps", str(max(start["at_step"], last_step(scalars)))
    if timing := timing_of(scalars, start):
        share = timing.step_data / max(timing.step, 1e-9)
        yield "time per step", f"{1e3 * timing.step:.0f} ms, {share:.0%} of it loading data (medians)"
        yield "training time", f"{clock(timing.training)}, without validation"
        if rate := samples_per_second(timing, start):
            yield "throughput", f"{rate:.1f} samples/s"
    if memory := scalars.get("train/memory"):
        yield "peak memory of the GPU", f"{max(value for _, value in memory) / 1024:.1f} GiB"
    yield "parameters", f"{start['parameters'] / 1e6:.2f} M"
    yield "batch size", f"{start['batch_size']} on each process"
    yield "processes", f"{start['processes']}, {start['device']}"
    yield "seed", str(start["seed"])
    yield "versions", ", ".join(f"{name} {version}" for name, version in start["versions"].items())


def clock(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))
