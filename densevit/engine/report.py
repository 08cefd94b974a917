"""What a finished training leaves for people: curves.png, results.md and pictures of sample predictions."""

import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import mmengine
import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from PIL import Image, ImageDraw, ImageFont

from densevit import __version__
from densevit.engine.curves import Scalars, metric_names, plot_curves, read_scalars
from densevit.registry import HOOKS

LESS_IS_BETTER = ("loss", "error", "hd95", "asd", "distance")
CAPTION = 24  # pixels, above each panel of a picture
GAP = 8


@HOOKS.register_module()
class ReportHook(Hook):
    """After training, plot what was logged, summarise it and predict a few validation samples.

    Pictures of metrics, the confusion of classes for one, are written after training, of the last validation and
    with "val_" before their names, and after each test.

    Args:
        num_samples: How many samples to predict, evenly spread over the validation set.
    """

    priority = "LOWEST"  # after the last checkpoint

    def __init__(self, num_samples: int = 4) -> None:
        self.num_samples = num_samples

    def after_train(self, runner: Any) -> None:
        if not is_main_process():
            return
        folder = Path(runner.work_dir)
        try:
            scalars = read_scalars(folder)
            plot_curves({folder.name: scalars}, folder / "curves.png")
            pictures = [] if runner.val_loop is None else write_pictures(runner.val_loop.evaluator, folder, "val_")
            pictures += self._draw_predictions(runner, folder / "predictions")
            (folder / "results.md").write_text(_summarise(runner, scalars, pictures))
        except Exception as error:  # nothing here is worth a finished training
            runner.logger.error(
                f"training is complete, but its report could not be written: {type(error).__name__}: {error}",
                exc_info=True,
            )
        else:
            runner.logger.info(f"wrote {folder / 'results.md'}, curves.png and {len(pictures)} other pictures")

    def after_test(self, runner: Any) -> None:
        if is_main_process():
            for path in write_pictures(runner.test_loop.evaluator, Path(runner.work_dir)):
                runner.logger.info(f"wrote {path}")

    def _draw_predictions(self, runner: Any, folder: Path) -> list[Path]:
        """Write input, truth and prediction side by side; nothing where predictions cannot be drawn."""
        if runner.val_loop is None:
            return []
        dataset, pictures = runner.val_loop.dataloader.dataset, []
        runner.model.eval()
        for index in np.unique(np.linspace(0, len(dataset) - 1, self.num_samples).astype(int)):
            sample = dataset[int(index)]
            if sample is None:
                continue
            with torch.no_grad():
                prediction = runner.model.test_step([sample])[0]
            if not hasattr(prediction, "draw"):
                return []
            pixels, target, path = dataset.read(int(index))
            image = dataset.picture(pixels)
            panels = {"input": image}
            if hasattr(prediction, "draw_truth"):
                panels["truth"] = prediction.draw_truth(image, target, dataset.classes, dataset.palette)
            panels["prediction"] = prediction.draw(image, dataset.classes, dataset.palette)
            folder.mkdir(parents=True, exist_ok=True)
            pictures.append(folder / f"{index:05d}_{Path(path.removesuffix('.gz')).stem}.png")
            side_by_side(panels).save(pictures[-1])
        return pictures


def write_pictures(evaluator: Any, folder: Path, prefix: str = "") -> list[Path]:
    """Write what metrics with a method ``pictures() -> {name: (H, W, 3) uint8}`` draw to ``<prefix><name>.png``."""
    written = []
    for metric in evaluator.metrics:
        for name, picture in metric.pictures().items() if hasattr(metric, "pictures") else ():
            folder.mkdir(parents=True, exist_ok=True)
            written.append(folder / f"{prefix}{name}.png")
            Image.fromarray(picture).save(written[-1])
    return written


def side_by_side(panels: Mapping[str, np.ndarray]) -> Image.Image:
    """Return the captioned panels ``(H, W, 3)``, uint8, in one row."""
    width = sum(panel.shape[1] + GAP for panel in panels.values()) + GAP
    height = max(panel.shape[0] for panel in panels.values()) + CAPTION + GAP
    canvas = Image.new("RGB", (width, height), "white")
    draw, font, left = ImageDraw.Draw(canvas), ImageFont.load_default(14), GAP
    for caption, panel in panels.items():
        draw.text((left, 4), caption, fill="black", font=font)
        canvas.paste(Image.fromarray(panel), (left, CAPTION))
        left += panel.shape[1] + GAP
    return canvas


def _summarise(runner: Any, scalars: Scalars, pictures: Sequence[Path]) -> str:
    name = Path(runner.cfg.filename or runner.work_dir).name
    folder = Path(runner.work_dir)
    parts = [
        f"# Results of {name}",
        "## Validation",
        *_scores(scalars),
        "## Run",
        _markdown(("", ""), [("config", name), *_facts(runner, scalars)]),
        "![curves](curves.png)",
        *(f"![{p.stem}]({p.relative_to(folder)})" for p in pictures),
    ]
    return "\n\n".join(parts) + "\n"


def _scores(scalars: Scalars) -> Iterator[str]:
    names = [*metric_names(scalars), *(["loss"] if "val/loss" in scalars else [])]
    if not names:
        yield "None: the run had no validation."
        return
    rows = []
    for name in names:
        points = scalars[f"val/{name}"]
        choose = min if any(word in name.lower() for word in LESS_IS_BETTER) else max
        best_step, best = choose(points, key=lambda point: point[1])
        rows.append((name, f"{points[-1][1]:.4f}", f"{best:.4f}", str(best_step)))
    step = scalars[f"val/{names[0]}"][-1][0]
    yield _markdown(("metric", f"last (step {step})", "best", "at step"), rows)
    yield "Report the last: the best was chosen on the split that it is measured on."


def _facts(runner: Any, scalars: Scalars) -> Iterator[tuple[str, str]]:
    """Yield what the run was and cost. Times come from the log, so that those of resumed runs add up."""
    times = scalars.get("train/time", [])
    yield "steps", str(runner.iter)
    if times:
        step = statistics.median(seconds for _, seconds in times)
        loading = statistics.median(seconds for _, seconds in scalars["train/data_time"])
        yield "time per step", f"{1e3 * step:.0f} ms, {loading / step:.0%} of it loading data (medians)"
        starts = [0, *(at for at, _ in times[:-1])]
        total = sum(seconds * (at - start) for (at, seconds), start in zip(times, starts, strict=True))
        yield "training time", f"{timedelta(seconds=round(total))}, without validation"
    yield "parameters", f"{sum(p.numel() for p in runner.model.parameters()) / 1e6:.2f} M"
    yield "seed", str(runner.seed)
    yield "processes", f"{runner.world_size}, {_device()}"
    yield (
        "versions",
        f"densevit {__version__}, torch {torch.__version__}, mmengine {mmengine.__version__}, "
        + (f"Python {platform.python_version()}"),
    )


def _device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (columns, ["---"] * len(columns), *rows))
