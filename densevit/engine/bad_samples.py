"""Telling of samples that could not be read in training; evaluations tell how many they score."""

from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import Hook

from densevit.data.quarantine import listed
from densevit.engine.loader import QUARANTINE
from densevit.registry import HOOKS


@HOOKS.register_module()
class BadSamplesHook(Hook):
    """Warn of samples that others took the place of in training, after each validation and at the end.

    They are met, and listed, by workers, which are not heard.
    """

    def __init__(self) -> None:
        self.told = 0

    def before_train(self, runner: Any) -> None:
        self.told = len(_replaced(runner))

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        if runner.iter:
            self.after_train(runner)

    @master_only
    def after_train(self, runner: Any) -> None:
        entries = _replaced(runner)
        if len(entries) > self.told:
            runner.logger.warning(
                f"{len(entries) - self.told} samples cannot be read, and others take their places in training, as "
                f"bad_samples.jsonl says; the last one: {entries[-1]['error']}"
            )
        self.told = len(entries)


def _replaced(runner: Any) -> list[dict[str, Any]]:
    return [entry for entry in listed(Path(runner.work_dir) / QUARANTINE) if entry["training"]]
