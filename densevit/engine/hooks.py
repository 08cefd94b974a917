"""Hooks that every run has. The file of each hook with more to it is imported here, so that it registers."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor

from densevit.engine.bad_samples import BadSamplesHook
from densevit.engine.checkpoint_hook import CheckpointHook
from densevit.engine.manifest import newest
from densevit.engine.progress import ProgressHook
from densevit.engine.report import ReportHook
from densevit.engine.sharding import ShardingHook
from densevit.engine.writer import PredictionWriterHook
from densevit.errors import NonFiniteLossError
from densevit.registry import HOOKS
from densevit.seeding import mix_seed
from densevit.structures import Sample

__all__ = [
    "BadSamplesHook",
    "BoundedHistoryHook",
    "CheckpointHook",
    "NonFiniteLossHook",
    "PredictionWriterHook",
    "ProgressHook",
    "ReportHook",
    "ShardingHook",
    "StepSeedHook",
]


@HOOKS.register_module()
class StepSeedHook(Hook):
    """Seed every step from (seed, step, rank): dropout and drop-path of a resumed run equal the uninterrupted one's."""

    priority = "VERY_HIGH"

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        torch.manual_seed(mix_seed(runner.seed, runner.iter, runner.rank))


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stop as soon as the loss is not finite, before a checkpoint is written, and name the batch.

    The update after a finite loss can spoil the weights: before each checkpoint they and the optimizer are looked at.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self.files = ""

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: list[Sample] | None = None, outputs: Any = None
    ) -> None:
        losses = {k: v.item() for k, v in (outputs or {}).items() if "loss" in k}
        self.files = ", ".join(sample.meta.path for sample in data_batch or ())
        if not all(map(math.isfinite, losses.values())):
            raise NonFiniteLossError(
                f"the loss is not finite at step {runner.iter + 1} ({losses}). {self._way_out(runner)}"
            )

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        tensors = [*runner.model.named_parameters(), *named_tensors(checkpoint.get("optimizer"), "optimizer")]
        wrong = [name for name, value in tensors if value.is_floating_point() and not value.isfinite().all()]
        # Infinity may be meant in a buffer, a mask of attention for one.
        wrong += [name for name, value in runner.model.named_buffers() if value.isnan().any()]
        if wrong:
            raise NonFiniteLossError(
                f"{wrong[0]} is not finite after step {checkpoint['meta']['iter']}, nor are {len(wrong) - 1} other "
                f"tensors, though the loss was: this is not saved. {self._way_out(runner)}"
            )

    def _way_out(self, runner: Any) -> str:
        saved = newest(Path(runner.work_dir))
        return (
            f"Batch: {self.files}. Look at these samples; lower the learning rate or lengthen the warm-up; "
            "try --no-amp. " + (f"{saved} is from before: go on with --resume" if saved else "Nothing is saved yet")
        )


def named_tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors inside of dictionaries and lists, by their dotted names."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping | list | tuple):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from named_tensors(inner, f"{name}.{key}")


@HOOKS.register_module()
class BoundedHistoryHook(Hook):
    """Keep 10,000 values of each logged key: mmengine keeps a million and copies them at every step."""

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.every_n_train_iters(runner, 1000):
            for buffer in runner.message_hub.log_scalars.values():
                buffer.max_length = 10_000
