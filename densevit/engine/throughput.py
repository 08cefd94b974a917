"""How long a model takes on this machine, and how much memory of a GPU."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from densevit.errors import ConfigError


@dataclass(frozen=True)
class Timing:
    """The median of several runs.

    Attributes:
        name: What was run.
        seconds: Of one batch.
        rate: Inputs per second.
        memory: Peak in bytes on a GPU, else None.
    """

    name: str
    seconds: float
    rate: float
    memory: int | None


def measure(
    model: nn.Module, inputs: Tensor, repeats: int, bf16: bool, backward: bool, advance: Callable[[], object]
) -> Iterator[Timing]:
    """Yield what evaluation takes, and one step forward and backward, where losses are not computed.

    Args:
        model: On the device of the inputs.
        inputs: A batch ``(N, C, *size)``.
        repeats: Runs after one that is not counted.
        bf16: Run under autocast.
        backward: Measure steps of training too.
        advance: Is called after every run.

    Raises:
        ConfigError: The GPU has not enough memory.
    """

    def forward() -> Any:
        with torch.autocast(inputs.device.type, torch.bfloat16) if bf16 else nullcontext():
            return model(inputs)

    def evaluate() -> None:
        with torch.inference_mode():
            forward()

    def train() -> None:
        torch.stack([t.float().mean() for t in tensors(forward()) if t.requires_grad]).sum().backward()
        model.zero_grad(set_to_none=True)

    for name, step in (("evaluation", evaluate), ("forward and backward", train))[: 1 + backward]:
        model.train(step is train)
        try:
            seconds, memory = _median(step, repeats, inputs.device, advance)
        except torch.OutOfMemoryError:
            needed = f"{name}: {len(inputs)} inputs need more memory than the GPU has"
            raise ConfigError(f"{needed}; lower --batch-size or --size") from None
        yield Timing(name, seconds, len(inputs) / seconds, memory)


def _median(
    step: Callable[[], None], repeats: int, device: torch.device, advance: Callable[[], object]
) -> tuple[float, int | None]:
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        step()
        if on_gpu:
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
        advance()
    return statistics.median(seconds[1:]), torch.cuda.max_memory_allocated(device) if on_gpu else None


def tensors(outputs: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested outputs."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, dict):
        yield from tensors(list(outputs.values()))
    elif isinstance(outputs, list | tuple):
        for output in outputs:
            yield from tensors(output)
