"""Curves of one or several runs, from the scalars that mmengine's local visualizer backend writes."""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from densevit.errors import DataError
from densevit.palette import LINES

Scalars = dict[str, list[tuple[int, float]]]

COLUMNS = 3
STYLES = ("-", "--", ":", "-.")  # of runs, beyond as many as there are colours
MAX_METRICS = 10  # panels beyond these would be too small to read


def read_scalars(work_dir: Path) -> Scalars:
    """Return ``(step, value)`` in order of steps for each of ``train/<name>`` and ``val/<name>``.

    A run that was resumed, or started again, has a folder of its own, named by the time of its start. Where a
    later one begins to train, what an earlier one logged from that step on is superseded.
    """
    merged: dict[str, dict[int, float]] = {}
    for file in sorted(work_dir.glob("*/vis_data/scalars.json")):
        lines = _read_lines(file)
        start = min((line["step"] for line in lines if _is_training(line)), default=math.inf)
        for name, points in merged.items():
            merged[name] = {step: value for step, value in points.items() if step < start}
        for line in lines:
            for name, value in _values(line).items():
                merged.setdefault(name, {})[line["step"]] = value
    return {name: sorted(points.items()) for name, points in merged.items() if points}


def _read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the records with a step above 0; a validation outside of training is logged at step 0.

    A line that is no record was being written as the process or the machine stopped.
    """
    lines = []
    for text in file.read_text(errors="replace").splitlines():
        with suppress(json.JSONDecodeError):
            lines.append(json.loads(text))
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int) and line["step"] > 0]


def _is_training(line: Mapping[str, Any]) -> bool:
    return "iter" in line  # which mmengine leaves out of the records of a validation


def _values(line: Mapping[str, Any]) -> dict[str, float]:
    prefix = "train" if _is_training(line) else "val"
    counters = ("step", "iter", "epoch")
    return {f"{prefix}/{k}": float(v) for k, v in line.items() if k not in counters and isinstance(v, int | float)}


def metric_names(scalars: Scalars) -> list[str]:
    """Return the names, without "val/", of what was validated: neither losses nor times."""
    names = (name.removeprefix("val/") for name in scalars if name.startswith("val/"))
    return [name for name in names if "loss" not in name and name not in ("time", "data_time")]


def plot_curves(runs: Mapping[str, Scalars], out: Path) -> None:
    """Draw loss, learning rate and each metric of the named runs over the steps, and write a PNG.

    Raises:
        DataError: No run has logged anything.
    """
    if not any(runs.values()):
        raise DataError(f"nothing was logged by {', '.join(runs)}: is there a <work dir>/<time>/vis_data/scalars.json?")
    drawn = (name for scalars in runs.values() for name in metric_names(scalars) if _is_defined(scalars[f"val/{name}"]))
    metrics = list(dict.fromkeys(drawn))[:MAX_METRICS]
    panels = ["loss", "learning rate", *metrics]
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.6 * columns, 3.3 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, panel in zip(grid, panels, strict=False):
        for i, (run, scalars) in enumerate(runs.items()):
            style = {"color": LINES[i % len(LINES)], "linestyle": STYLES[i // len(LINES) % len(STYLES)]}
            _draw(axes, panel, scalars, style, f"{run} " if len(runs) > 1 else "")
        _finish(axes, panel)
    for axes in grid[len(panels) :]:
        axes.remove()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)


def _draw(axes: Axes, panel: str, scalars: Scalars, style: dict[str, str], run: str) -> None:
    if panel == "learning rate":
        _line(axes, scalars.get("train/lr", ()), **style, label=run)
    elif panel == "loss":
        raw = scalars.get("train/loss", ())
        _line(axes, raw, **style, alpha=0.25, linewidth=0.8)
        _line(axes, smooth(raw), **style, label=f"{run}training")
        _line(axes, scalars.get("val/loss", ()), **{**style, "linestyle": "--"}, label=f"{run}validation", marker="o")
    else:
        points = scalars.get(f"val/{panel}", [])
        last = f"{points[-1][1]:.4g} at the end" if _is_defined(points) else "has none"
        _line(axes, points, **style, label=run + last, marker="o")


def _is_defined(points: Sequence[tuple[int, float]]) -> bool:
    """Return whether a metric ever had a value: AP of large objects has none where there are none."""
    return any(not math.isnan(value) for _, value in points)


def _line(axes: Axes, points: Sequence[tuple[int, float]], **style: Any) -> None:
    if points:
        axes.plot(*zip(*points, strict=True), markersize=3.5, **{"linewidth": 1.4, **style})


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("step")
    axes.set_xlim(left=0)
    axes.ticklabel_format(axis="y", scilimits=(-2, 4))
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    if any(label.strip() for label in axes.get_legend_handles_labels()[1]):
        axes.legend(fontsize=8)


def smooth(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the centred moving average over about a twentieth of the points, ever narrower towards the ends."""
    half = len(points) // 40
    values = np.array([value for _, value in points])
    reach = [min(half, i, len(points) - 1 - i) for i in range(len(points))]
    return [
        (step, float(values[i - r : i + r + 1].mean()))
        for i, ((step, _), r) in enumerate(zip(points, reach, strict=True))
    ]
