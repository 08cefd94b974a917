"""Telling of samples that could not be read."""

from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import Hook

from densevit.data.quarantine import listed
from densevit.engine.loader import QUARANTINE
from densevit.registry import HOOKS


@HOOKS.register_module()
class BadSamplesHook(Hook):
    """Warn of samples that were replaced or left out since the start, after each validation, a training and a test.

    They are met, and listed, by workers, which are not heard.
    """

    def __init__(self) -> None:
        self.told = 0

    def before_run(self, runner: Any) -> None:
        self.told = len(listed(Path(runner.work_dir) / QUARANTINE))

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        self._tell(runner)

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        self._tell(runner)

    def after_train(self, runner: Any) -> None:
        self._tell(runner)

    @master_only
    def _tell(self, runner: Any) -> None:
        path = Path(runner.work_dir) / QUARANTINE
        entries = listed(path)[self.told :]
        if entries:
            self.told += len(entries)
            replaced = sum(entry["training"] for entry in entries)
            runner.logger.warning(
                f"samples that cannot be read: {replaced} replaced in training, {len(entries) - replaced} left out of "
                f"an evaluation, as {path} says; the last one: {entries[-1]['error']}"
            )
