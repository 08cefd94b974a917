"""Predictions of a test run as files."""

import os
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.hooks import Hook

from densevit.data.dataset import DenseDataset
from densevit.data.readers import read_image
from densevit.registry import HOOKS
from densevit.structures import Sample


@HOOKS.register_module()
class PredictionWriterHook(Hook):
    """Write every prediction, named after its input, to ``out`` and a picture of it to ``show_dir``."""

    def __init__(self, out: str | None = None, show_dir: str | None = None) -> None:
        self.out, self.show_dir = out, show_dir
        self.folder = Path()

    def before_test(self, runner: Any) -> None:
        self.folder = common_folder(runner.test_dataloader.dataset)

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: list[Sample] | None = None, outputs: Any = None
    ) -> None:
        metainfo = runner.test_dataloader.dataset.metainfo
        for sample, prediction in zip(data_batch or (), outputs, strict=True):
            path = Path(sample.meta.path)
            name = path.relative_to(self.folder).with_suffix("")
            if self.out:
                prediction.save(Path(self.out) / name)
            if self.show_dir:
                image = np.asarray(read_image(path).permute(1, 2, 0))
                picture = prediction.draw(image, metainfo["classes"], metainfo["palette"])
                mmcv.imwrite(mmcv.rgb2bgr(picture), str(Path(self.show_dir) / f"{name}.jpg"))


def common_folder(dataset: DenseDataset) -> Path:
    """Return the folder below which all inputs lie: names relative to it are unique."""
    return Path(os.path.commonpath([Path(dataset.path(i)).parent for i in range(len(dataset))]))
