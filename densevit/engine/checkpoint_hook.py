"""When checkpoints are written and which are kept.

mmengine's hook deletes the old file before it writes the new one, so that a full disk can cost both.
"""

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from densevit.engine.checkpoint import read_manifest, remove
from densevit.errors import ConfigError
from densevit.registry import HOOKS, suggestion


@HOOKS.register_module()
class CheckpointHook(Hook):
    """Save every ``interval`` steps or epochs, at the end and on a stop; keep the newest few, and the best.

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
        self._saved = 0  # the step of the newest checkpoint

    def before_train(self, runner: Any) -> None:
        self._saved = runner.iter

    def before_stop(self, runner: Any) -> None:
        """Save a run that ends early, unless its step is saved already."""
        if runner.iter != self._saved:
            self._save(runner, f"iter_{runner.iter}.pth", runner.iter, runner.epoch)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if not self.by_epoch and (self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner)):
            step = runner.iter + 1
            self._save(runner, f"iter_{step}.pth", step, runner.epoch)

    def after_train_epoch(self, runner: Any) -> None:
        if self.by_epoch and (self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner)):
            self._save(runner, f"epoch_{runner.epoch + 1}.pth", runner.iter, runner.epoch + 1)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        if self.save_best is None or metrics is None or runner.iter == 0:
            return
        if self.save_best not in metrics:
            raise ConfigError(f"save_best={self.save_best!r} is not a metric.{suggestion(self.save_best, metrics)}")
        name, score = f"best_{self.save_best}.pth", metrics[self.save_best]
        if score > read_manifest(Path(runner.work_dir)).get(name, {}).get("score", float("-inf")):
            runner.save_checkpoint(name, runner.iter, runner.epoch, score=score)

    def _save(self, runner: Any, name: str, step: int, epoch: int) -> None:
        runner.save_checkpoint(name, step, epoch)
        self._saved = step
        if is_main_process():
            folder = Path(runner.work_dir)
            periodic = {k: v["iter"] for k, v in read_manifest(folder).items() if not k.startswith("best_")}
            for old in sorted(periodic, key=lambda k: periodic[k])[: -self.max_keep_ckpts]:
                remove(folder / old)
