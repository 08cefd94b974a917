"""Whether an exported model gives what the model gives."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from densevit.errors import ConfigError
from densevit.export.files import Run, example
from densevit.export.graph import Graph
from densevit.export.sizes import InputSize

TOLERANCE = 1e-3  # of an output: largest difference over the largest value
PARTNERS = 0.98  # share of objects that the other one must find too: where scores are nearly equal, some swap
REPEATS = 3  # that times are the shortest of


class Row(NamedTuple):
    """One input: its shape, the relative difference and the objects that have no partner, and seconds of both."""

    shape: tuple[int, ...]
    difference: float
    alone: float
    eager: float
    exported: float

    @property
    def equal(self) -> bool:
        """Whether the differences are those of rounding."""
        return self.difference <= TOLERANCE and self.alone <= 1 - PARTNERS


def compare(graph: Graph, run: Run, size: InputSize) -> list[Row]:
    """Run both on inputs of the sizes that tell, and return what differs.

    Raises:
        ConfigError: What was exported does not run on one of them.
    """
    rows = []
    for seed, (batch, space) in enumerate(size.tried()):
        x = example(graph, batch, space, seed)
        expected, eager = _timed(lambda x: {name: t.numpy() for name, t in graph(x).items()}, x)
        try:
            found, exported = _timed(run, x)
        except Exception as error:  # of whichever runtime
            parts = f"{type(graph.model.backbone).__name__} with {type(graph.model.head).__name__}"
            hint, reason = ": add --static" if size.batch else "", str(error).splitlines()[0]
            raise ConfigError(
                f"the graph of {parts} does not run on inputs {tuple(x.shape)}{hint} ({reason})"
            ) from error
        rows.append(Row(tuple(x.shape), *difference(expected, found), eager, exported))
    return rows


def difference(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Return the largest relative difference, and the share of objects that have no partner in the other.

    Objects are compared each with the one that is most like it; other outputs have none, and the share is 0.
    """
    if expected.keys() != found.keys():
        raise ValueError(f"outputs are {', '.join(found)}, not {', '.join(expected)}")
    if "boxes" not in expected:
        return max(_relative(expected[name], found[name]) for name in expected), 0.0
    largest, alone, total = 0.0, 0, 0
    for image in range(len(expected["count"])):
        one, other = (_objects(outputs, image) for outputs in (expected, found))
        apart = _apart(one, other)
        partners = [np.min(apart, axis=axis, initial=np.inf) for axis in (0, 1)]
        for nearest in partners:
            near = nearest <= TOLERANCE
            largest = max(largest, *nearest[near].tolist(), 0.0)
            alone, total = alone + int((~near).sum()), total + len(nearest)
    return largest, alone / max(total, 1)


def _relative(expected: np.ndarray, found: np.ndarray) -> float:
    if expected.shape != found.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(expected - found).max(initial=0) / max(np.abs(expected).max(initial=0), 1e-12))


def _objects(outputs: Mapping[str, np.ndarray], image: int) -> dict[str, np.ndarray]:
    count = int(outputs["count"][image])
    return {name: value[image, :count] for name, value in outputs.items() if name != "count"}


def _apart(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return how much each object of one differs from each of the other ``(n, m)``; of other classes, infinitely."""
    apart = np.where(one["labels"][:, None] == other["labels"], 0.0, np.inf)
    side = max(float(one["boxes"].max(initial=1)), 1.0)
    for name, scale in (("boxes", side), ("scores", 1.0), ("masks", 1.0)):
        if name in one:
            pair = np.abs(one[name][:, None] - other[name][None]) / scale
            apart = np.maximum(apart, pair.max(axis=tuple(range(2, pair.ndim)), initial=0))
    return apart


def _timed(function: Callable[[Tensor], Any], x: Tensor) -> tuple[dict[str, np.ndarray], float]:
    """Return outputs and the seconds that one run takes."""
    with torch.no_grad():
        outputs, times = function(x), []
        for _ in range(REPEATS):
            start = time.perf_counter()
            function(x)
            times.append(time.perf_counter() - start)
    return outputs, min(times)
