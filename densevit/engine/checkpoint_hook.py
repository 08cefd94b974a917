"""When checkpoints are written and which are kept.

mmengine's hook deletes the old file before it writes the new one, so that a full disk can cost both.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from densevit.engine.checkpoint import remove
from densevit.engine.manifest import read_manifest
from densevit.errors import ConfigError
from densevit.registry import HOOKS, suggestion


@HOOKS.register_module()
class CheckpointHook(Hook):
    """Save every ``interval`` steps or epochs, at the end and on a stop; keep the newest few, and the best.

    Where gradients are accumulated, a checkpoint waits for the step that ends with an update: gradients are not saved,
    and a run resumed between updates would lose them. The best one, of weights that a validation has seen, cannot wait;
    between updates it is written without the optimizer, so that it can be tested but not resumed.

    Args:
        interval: Steps, or epochs if ``by_epoch``, between checkpoints.
        by_epoch: Unit of ``interval``.
        max_keep_ckpts: How many of the periodic ones to keep.
        save_best: Metric, larger is better, whose best checkpoint is kept as ``best_<metric>.pth`` besides.
    """

    priority = "VERY_LOW"

    def __init__(
        self, interval: int, by_epoch: bool = False, max_keep_ckpts: int = 2, save_best: str | None = None
    ) -> None:
        if interval < 1 or max_keep_ckpts < 1:
            raise ConfigError(f"CheckpointHook: interval={interval} and max_keep_ckpts={max_keep_ckpts} must be >= 1")
        self.interval, self.by_epoch = interval, by_epoch
        self.max_keep_ckpts, self.save_best = max_keep_ckpts, save_best
        self.due = ""  # file to write as soon as the weights are updated
        self._saved = 0  # the step of the newest checkpoint

    def before_train(self, runner: Any) -> None:
        self._saved = runner.iter
        metrics = runner.val_loop.evaluator.metrics if runner.val_loop is not None else []
        if metrics and all(hasattr(metric, "rising") for metric in metrics):  # else the first validation tells names
            self._check_best({name for metric in metrics for name in metric.rising})

    def before_stop(self, runner: Any) -> None:
        """Save a run that ends early, unless its step is saved already."""
        if runner.iter != self._saved:
            self._save(runner, f"iter_{runner.iter}.pth", runner.iter, runner.epoch)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        step = runner.iter + 1
        if not self.by_epoch and (self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner)):
            self.due = "iter"
        if self.due and runner.updated:
            self._save(runner, f"iter_{step}.pth" if self.due == "iter" else self.due, step, runner.epoch)

    def after_train_epoch(self, runner: Any) -> None:
        if self.by_epoch and (self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner)):
            self.due = f"epoch_{runner.epoch + 1}.pth"
            if runner.updated:
                self._save(runner, self.due, runner.iter, runner.epoch + 1)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        if self.save_best is None or metrics is None or runner.iter == 0:
            return
        self._check_best(metrics)
        name, score = f"best_{self.save_best}.pth", metrics[self.save_best]
        manifest = read_manifest(Path(runner.work_dir))
        both = (manifest.get(key, {}) for key in (name, name.removesuffix(".pth")))  # a file, or a split model's folder
        if score > max(entry.get("score", float("-inf")) for entry in both):
            runner.save_checkpoint(name, runner.iter, runner.epoch, score=score)

    def _check_best(self, names: Collection[str]) -> None:
        if self.save_best is not None and self.save_best not in names:
            near = suggestion(self.save_best, names)
            raise ConfigError(f"save_best={self.save_best!r} is not a metric of which more is better.{near}")

    def _save(self, runner: Any, name: str, step: int, epoch: int) -> None:
        self.due = ""
        runner.save_checkpoint(name, step, epoch)
        self._saved = step
        if is_main_process():
            folder = Path(runner.work_dir)
            periodic = [name for name in read_manifest(folder) if not name.startswith("best_")]  # as they were written
            for old in periodic[: -self.max_keep_ckpts]:
                remove(folder / old)
