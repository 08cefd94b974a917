"""Numbers in configs that can be no others, so that a slip of the hand is told before any data is read."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any

from mmengine.config import Config

from densevit.errors import ConfigError

LOADER = {"batch_size": 1, "num_workers": 0, "repeats": 1}
WHOLE = {
    "default_hooks.checkpoint.interval": 1,
    "default_hooks.logger.interval": 1,
    "model.data_preprocessor.num_classes": 1,
    "model.head.num_classes": 1,
    "optim_wrapper.accumulative_counts": 1,
    "train_cfg.max_epochs": 1,
    "train_cfg.max_iters": 1,
    "train_cfg.val_begin": 0,
    "train_cfg.val_interval": 1,
    **{f"{split}_dataloader.{key}": least for split in ("train", "val", "test") for key, least in LOADER.items()},
}
POSITIVE = ("optim_wrapper.optimizer.lr", "optim_wrapper.optimizer.weight_decay")  # or zero


def check_values(cfg: Config) -> None:
    """Raise `ConfigError` where a number is of a wrong type or too small."""
    for key, least in WHOLE.items():
        value = _find(cfg, key, least)
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{key} is a whole number of at least {least}, not {value!r}")
    for key in POSITIVE:
        value = _find(cfg, key, 0)
        if not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise ConfigError(f"{key} is a number of at least 0, such as 1e-3, not {value!r}")


def _find(node: Any, key: str, default: Any) -> Any:
    """Return the value of a dotted key, or the default where it is not in the config."""
    for part in key.split("."):
        if not isinstance(node, Mapping | Config) or part not in node:
            return default
        node = node[part]
    return node
