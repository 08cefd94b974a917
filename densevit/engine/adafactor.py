"""The optimizer of large plain vision transformers: about a quarter of the memory of Adam's moments."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from densevit.errors import ConfigError
from densevit.registry import OPTIMIZERS

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
FACTORED_FROM = 32  # size of the second largest dimension
EPSILON = 1e-30


@OPTIMIZERS.register_module(name="ViTAdafactor")
class Adafactor(torch.optim.Optimizer):
    """Adafactor as modified in "Scaling Vision Transformers" (https://arxiv.org/abs/2106.04560).

    Of tensors whose two largest dimensions are at least 32, the second moment is kept as its means over either one.
    It decays by ``min(1 - t ** -0.8, 0.999)`` in step t = 1, 2, ... The momentum is an average without correction of
    its start. Unlike Adafactor (https://arxiv.org/abs/1804.04235), which torch has, updates are neither clipped nor
    scaled by the size of parameters. The paper clips the norm of all gradients to 1: ``clip_grad=dict(max_norm=1.0)``
    of the optimizer wrapper.

    Momentum in bfloat16 is rounded as in the official code, which rounds the factor too: 0.9 is 0.8984 there. Tensors
    are factored as laid out here: one matrix for query, key and value, where the official code has three tensors of
    shape (width, heads, width of a head), whose means are others.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate, of updates whose root mean square is about 1 before the momentum.
        momentum: Share of the past in the average of updates.
        momentum_dtype: "bfloat16" or "float32".
        weight_decay: Decoupled, as in AdamW: a step shrinks parameters by ``lr * weight_decay``, with the scheduled
            learning rate. The paper's is 0.03, and 3.0 for the kernel of the head (``head_decay=100`` of
            LayerDecayConstructor); the official code states the product with the highest rate.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0.9,
        momentum_dtype: str = "bfloat16",
        weight_decay: float = 0.0,
    ) -> None:
        if momentum_dtype not in DTYPES:
            raise ConfigError(f'ViTAdafactor: momentum_dtype must be "bfloat16" or "float32", not {momentum_dtype!r}')
        if lr < 0 or weight_decay < 0 or not 0 <= momentum < 1:
            raise ConfigError(
                "ViTAdafactor: lr and weight_decay must not be negative and momentum in [0, 1), "
                f"not {lr}, {weight_decay} and {momentum}"
            )
        options = {"lr": lr, "momentum": momentum, "momentum_dtype": momentum_dtype, "weight_decay": weight_decay}
        super().__init__(params, options)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the parameters that have a gradient; return what ``closure`` does, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad.float(), group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state in the precision in which it was saved: torch casts it to that of the parameters."""
        super().load_state_dict(state_dict)
        parameters = [p for group in self.param_groups for p in group["params"]]
        numbers = [n for group in state_dict["param_groups"] for n in group["params"]]
        for parameter, number in zip(parameters, numbers, strict=True):
            for key, value in state_dict["state"].get(number, {}).items():
                if isinstance(value, Tensor):
                    self.state[parameter][key] = value.to(parameter.device, copy=True)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["momentum"] = torch.zeros_like(parameter, dtype=DTYPES[group["momentum_dtype"]])
        state["step"] += 1
        update = _normalised(gradient, state)
        average: Tensor = state["momentum"]
        past = torch.tensor(group["momentum"], dtype=average.dtype).item()
        update.mul_(1 - group["momentum"]).add_(average.mul_(past))
        average.copy_(update)
        parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])


def _normalised(gradient: Tensor, state: dict[str, Any]) -> Tensor:
    """Return the gradient over the root of its second moment, which is kept in ``state``."""
    new = max(state["step"] ** -0.8, 0.001)
    square = gradient.square().add_(EPSILON)
    dims = _factored(gradient.shape)
    if dims is None:
        return gradient * _average(state, "second_moment", square, new).rsqrt()
    one, other = dims
    over_other = _average(state, "mean_over_largest", square.mean(other, keepdim=True), new)
    over_one = _average(state, "mean_over_second", square.mean(one, keepdim=True), new)
    rows = (over_other / over_other.mean(one, keepdim=True)).rsqrt_()
    return (gradient * rows).mul_(over_one.rsqrt())


def _average(state: dict[str, Any], key: str, value: Tensor, new: float) -> Tensor:
    """Return the running average ``state[key]``, with ``value`` taken in at the share ``new``."""
    if key not in state:
        state[key] = torch.zeros_like(value)
    return state[key].lerp_(value, new)


def _factored(shape: torch.Size) -> tuple[int, int] | None:
    """Return the second largest and the largest dimension, the last ones of equal size; None if one is small."""
    if len(shape) < 2:
        return None
    second, largest = sorted(range(len(shape)), key=lambda i: shape[i])[-2:]
    return (second, largest) if shape[second] >= FACTORED_FROM else None
