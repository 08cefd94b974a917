"""Learning-rate schedules that mmengine lacks, and whether a run is as long as its schedules."""

from collections.abc import Mapping
from typing import Any

from mmengine.optim import _ParamScheduler

from densevit.errors import ConfigError
from densevit.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class RsqrtLR(_ParamScheduler):
    """Reciprocal square root of "Scaling Vision Transformers" (https://arxiv.org/abs/2106.04560), with warm-up.

    Of the learning rate of each group of parameters, step s has the share ``1 / sqrt(1 + (s + shift - warmup) /
    timescale)``. The warm-up rises to it linearly from 0, the cooldown falls linearly to 0 at ``end``. Since the
    middle part does not depend on the length of the run, one run can be cooled down at several lengths.

    The warm-up being a part of it, no other scheduler may act in the same steps. Steps are iterations with
    ``by_epoch=False``. Stated in epochs, use ``convert_to_iter_based=True``: the first epoch has the rate 0 otherwise.

    Args:
        optimizer: Optimizer or optimizer wrapper.
        timescale: Steps after which the rate has fallen to ``1 / sqrt(2)``; 10,000 in the paper.
        warmup: Steps of the warm-up.
        cooldown: Steps of the cooldown.
        shift: Steps by which the fall is ahead, to go on smoothly from another run.
        options: ``begin``, ``end``, ``by_epoch`` and what else schedulers of mmengine take.
    """

    def __init__(
        self,
        optimizer: Any,
        timescale: float,
        warmup: float = 0,
        cooldown: float = 0,
        shift: float = 0,
        **options: Any,
    ) -> None:
        if timescale <= 0 or warmup < 0 or cooldown < 0 or shift <= -timescale:
            raise ConfigError(
                "RsqrtLR: timescale must be positive, warmup and cooldown not negative and shift above -timescale, "
                f"not {timescale}, {warmup}, {cooldown} and {shift}"
            )
        self.timescale, self.warmup, self.cooldown, self.shift = timescale, warmup, cooldown, shift
        super().__init__(optimizer, "lr", **options)  # which takes step 0

    @classmethod
    def build_iter_from_epoch(cls, *args: Any, epoch_length: int, by_epoch: bool = True, **options: Any) -> "RsqrtLR":
        """Return the scheduler in iterations whose ``options`` are in epochs of ``epoch_length`` iterations."""
        assert by_epoch, "the registry converts schedulers in epochs only"
        for key in options.keys() & {"timescale", "warmup", "cooldown", "shift"}:
            options[key] *= epoch_length
        for key in options.keys() & {"begin", "end"}:
            options[key] = int(options[key] * epoch_length)
        return cls(*args, by_epoch=False, **options)

    def factor(self, step: int) -> float:
        """Return the share of the learning rate in a step, counted from ``begin``."""
        factor = (1 + (max(step, self.warmup) + self.shift - self.warmup) / self.timescale) ** -0.5
        if step < self.warmup:
            factor *= step / self.warmup
        if self.cooldown:
            factor *= min(1.0, (self.end - self.begin - step) / self.cooldown)
        return factor

    def _get_value(self) -> list[float]:
        """Return the learning rate of each group."""
        return [base * self.factor(self.last_step) for base in self.base_values]


def reach(schedules: Any, train_cfg: Mapping[str, Any]) -> str:
    """Say how far schedules reach beyond the end of a training, as those of a base do in a shorter one; else "".

    Args:
        schedules: ``param_scheduler`` of a config.
        train_cfg: Of the same, with ``max_epochs`` or ``max_iters``.
    """
    by_epoch = train_cfg.get("by_epoch", "max_epochs" in train_cfg)
    length, unit = (train_cfg.get("max_epochs"), "epoch") if by_epoch else (train_cfg.get("max_iters"), "step")
    each = [one for one in (schedules if isinstance(schedules, list | tuple) else [schedules]) if one]
    ends = [one.get("end") or one.get("T_max") or 0 for one in each if one.get("by_epoch", True) == by_epoch]
    if length is None or max(ends, default=0) <= length:
        return ""
    return (
        f"param_scheduler reaches to {unit} {max(ends)}, and the training ends at {unit} {length}: the learning rate "
        f"does not fall as it is meant to. Set end={length} in param_scheduler, and a shorter warm-up"
    )
