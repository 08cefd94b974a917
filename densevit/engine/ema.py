"""Averages of the weights over the steps of a run."""

from typing import Any

import torch
from mmengine.hooks import EMAHook as MMEngineEMAHook
from mmengine.model import BaseAveragedModel
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from densevit.engine.sharding import mesh_of, reshard, tensors_of
from densevit.errors import ConfigError
from densevit.registry import HOOKS, MODELS


@MODELS.register_module()
class WarmupEMA(BaseAveragedModel):
    """Exponential moving average whose decay grows to ``1 - momentum``, so that it forgets the initial weights.

    After step t = 1, 2, ... the average is ``decay * average + (1 - decay) * weights`` with
    ``decay = min(1 - momentum, (1 + t) / (10 + t))``. With a fixed decay of 0.9999 the initial weights would still
    count 37 % after 10,000 steps; with this, the average spans about the last ninth of the steps, until they are
    9 / momentum.

    Statistics of batch norm are averaged like the weights: those of the last step belong to other weights. Integers,
    such as counts of batches, are copied.

    Args:
        model: What is averaged.
        momentum: Share of the newest weights after the warm-up, 1 - decay.
    """

    steps: Tensor

    def __init__(self, model: nn.Module, momentum: float = 0.0001) -> None:
        if not 0 < momentum < 1:
            raise ConfigError(f"WarmupEMA: momentum must be between 0 and 1, 0.0001 for instance, not {momentum}")
        super().__init__(model, update_buffers=True)
        self.momentum = momentum

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take in the weights after a step; the first ones are copied."""
        source = model.state_dict()
        floats = [key for key, value in self.avg_parameters.items() if value.is_floating_point()]
        for key in self.avg_parameters.keys() - floats if self.steps else self.avg_parameters:
            self.avg_parameters[key].copy_(source[key])
        if self.steps:
            step = int(self.steps)
            average = get_ema_multi_avg_fn(min(1 - self.momentum, (1 + step) / (10 + step)))
            average(
                [_own_part(self.avg_parameters[key]) for key in floats],
                [_own_part(source[key]) for key in floats],
                step,
            )
        self.steps += 1


@HOOKS.register_module()
class EMAHook(MMEngineEMAHook):
    """mmengine's, but a test is of the averaged weights.

    Those of a checkpoint are averaged already. mmengine's hook would exchange them for the copy that it made of the
    model before anything was loaded, and forget the average when a test begins in the process that trained.

    Args:
        ema_type: Kind of the average, `WarmupEMA` for instance.
        **options: Arguments of that, such as ``momentum``; and of mmengine's hook, ``begin_iter`` or ``begin_epoch``,
            from where on weights are averaged, and ``strict_load``.
    """

    trained = False

    def __init__(self, ema_type: str = "ExponentialMovingAverage", **options: Any) -> None:
        super().__init__(ema_type, **options)
        MODELS.check(self.ema_cfg)  # mmengine would notice a wrong key only when the run begins

    def before_run(self, runner: Any) -> None:
        if self.trained:
            return
        if mesh_of(runner.model) is None:
            super().before_run(runner)
        else:
            self.src_model = runner.model
            self.ema_model = MODELS.build(self.ema_cfg, default_args={"model": tensors_of(runner.model)})

    def _swap_ema_parameters(self) -> None:
        reshard(self.src_model)  # gathered weights are copies
        super()._swap_ema_parameters()

    def before_train(self, runner: Any) -> None:
        super().before_train(runner)
        self.trained = True

    def after_stopped_val(self, runner: Any) -> None:
        self.after_val_epoch(runner)

    def before_test_epoch(self, runner: Any) -> None:
        if self.trained:
            super().before_test_epoch(runner)

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        if self.trained:
            super().after_test_epoch(runner, metrics)


def _own_part(value: Tensor) -> Tensor:
    """Return the part of a tensor that this process has, if it is split."""
    return value.to_local() if isinstance(value, DTensor) else value
