"""Predictions of a test run as files."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from densevit.registry import HOOKS
from densevit.structures import Sample


@HOOKS.register_module()
class PredictionWriterHook(Hook):
    """Write every prediction, named after its input, to ``out`` and a picture of it to ``show_dir``.

    Metrics with a method ``write(folder) -> path`` also write to ``out``.

    Args:
        out: Folder of the files; none are written by default.
        show_dir: Folder of the pictures; none are drawn by default.
    """

    def __init__(self, out: str | None = None, show_dir: str | None = None) -> None:
        self.out, self.show_dir = out, show_dir
        self.inputs: dict[str, tuple[int, str]] = {}  # path -> index and name of what is written

    def before_test(self, runner: Any) -> None:
        dataset = runner.test_dataloader.dataset
        paths = [dataset.path(i) for i in range(len(dataset))]
        self.inputs = dict(zip(paths, enumerate(output_names(paths)), strict=True))

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: list[Sample] | None = None, outputs: Any = None
    ) -> None:
        dataset = runner.test_dataloader.dataset
        for sample, prediction in zip(data_batch or (), outputs, strict=True):
            index, name = self.inputs[sample.meta.path]
            if self.out:
                prediction.save(Path(self.out, name))
            if self.show_dir:
                image = dataset.picture(dataset.read(index)[0])
                picture = prediction.draw(image, dataset.classes, dataset.palette)
                mmcv.imwrite(mmcv.rgb2bgr(picture), str(Path(self.show_dir, f"{name}.jpg")))

    def after_test(self, runner: Any) -> None:
        if self.out is None or not is_main_process():
            return
        for metric in runner.test_loop.evaluator.metrics:
            if hasattr(metric, "write"):
                runner.logger.info(f"wrote {metric.write(Path(self.out))}")


def output_names(paths: Sequence[str]) -> list[str]:
    """Return, for each input, the path below the folder of all of them, without suffix, that its results go by.

    Inputs that differ in the suffix only keep it; ".nii.gz" is one suffix. An image inside a file, ``file#row``, goes
    by ``file/row``.
    """
    absolute = [os.path.abspath(path) for path in paths]
    folder = os.path.commonpath({os.path.dirname(path) for path in absolute})
    full = [re.sub(r"(\.\w+)?#(\d+)$", r"/\2", os.path.relpath(path, folder)) for path in absolute]
    short = [os.path.splitext(name.removesuffix(".gz"))[0] for name in full]
    shared = {name for name, count in Counter(short).items() if count > 1}
    return [name if stem in shared else stem for name, stem in zip(full, short, strict=True)]
