"""Learning rates that follow the batch size.

A recipe is for a number of samples per update, ``auto_scale_lr.base_batch_size``; another number scales its rates in
proportion (https://arxiv.org/abs/1706.02677). mmengine's scaling forgets accumulated gradients, schedules' absolute
values, and the rate that is logged where there are several groups of parameters.
"""

from collections.abc import Mapping
from typing import Any

from densevit.errors import ConfigError

ABSOLUTE = ("eta_min", "eta_max", "min_value")  # of schedules, in units of the learning rate


def factor(auto_scale_lr: Mapping[str, Any] | None, total: int) -> float:
    """Return what to scale learning rates by: 1 unless the recipe states another batch size than ``total``.

    Raises:
        ConfigError: It is to be scaled, but from what is not stated.
    """
    settings = auto_scale_lr or {}
    base = settings.get("base_batch_size")
    if settings.get("enable") and not base:
        raise ConfigError("auto_scale_lr.base_batch_size is missing: for how many samples is the learning rate?")
    return total / base if base and settings.get("enable", True) else 1.0


def scale_schedule(schedule: Any, scale: float) -> Any:
    """Return the configs of schedules of the learning rate with their absolute values scaled."""
    if isinstance(schedule, list | tuple):
        return [scale_schedule(one, scale) for one in schedule]
    if not isinstance(schedule, Mapping) or not str(schedule.get("type")).endswith("LR"):
        return schedule
    return {**schedule, **{key: schedule[key] * scale for key in ABSOLUTE if schedule.get(key)}}


def statement(auto_scale_lr: Mapping[str, Any] | None, total: int, rate: float | None) -> str:
    """Say what becomes of the learning rate ``rate`` of the config with ``total`` samples per update.

    Empty if the recipe states no batch size, or this one.
    """
    settings = auto_scale_lr or {}
    base = settings.get("base_batch_size")
    if not base or base == total:
        return ""
    scale = factor(settings, total)
    text = f"the recipe is for {base}: "
    if scale == 1:
        stays = "" if rate is None else f" {rate:g}"
        return text + f"the learning rate stays{stays}; --auto-scale-lr scales it by {total / base:g}"
    change = "" if rate is None else f": {rate:g} -> {rate * scale:g}"
    return text + f"learning rate scaled by {scale:g}{change}; --no-auto-scale-lr keeps it"
