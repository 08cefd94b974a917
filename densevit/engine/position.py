"""Where a run is in its data, and what another number of processes or batch size means for going on there."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Batch(NamedTuple):
    """What one update of the weights is made of."""

    batch_size: int  # samples of one process
    world_size: int
    accumulated: int  # steps per update

    @property
    def per_step(self) -> int:
        return self.batch_size * self.world_size

    @property
    def total(self) -> int:
        return self.per_step * self.accumulated

    def __str__(self) -> str:
        return f"{self.batch_size} x {self.world_size} processes x {self.accumulated} accumulated = {self.total}"


def entries(batch: Batch, position: tuple[int, int]) -> dict[str, int]:
    """Return what a checkpoint's meta says of the batch and of the position in the data, an epoch and its samples."""
    return {**batch._asdict(), "data_epoch": position[0], "data_seen": position[1]}


def changes(
    meta: Mapping[str, Any], batch: Batch, step: int, position: tuple[int, int], grouped: bool = False
) -> str | None:
    """Say what is not as it would have been without the interruption; None if nothing is.

    Args:
        meta: Of the checkpoint.
        batch: The one to go on with.
        step: The step to go on at.
        position: Its epoch of the data, and the samples of it that were seen before.
        grouped: The samples of an epoch are dealt out to batches by what they are.
    """
    before = Batch(*(meta[key] for key in Batch._fields))
    if before == batch:
        return None
    reached = meta["data_epoch"], meta["data_seen"]
    if grouped:
        order = "batches are grouped anew: some samples of this pass may be seen twice and others not"
    elif position == reached:
        order = "none is left out or seen again"
    else:
        order = f"{_place(*reached)} was reached: none is left out, those in between are seen again"
    lines = [
        f"resuming with another batch: {before} before, {batch} now",
        f"- the data go on at {_place(*position)}; {order}",
    ]
    if step != meta["iter"]:
        lines.append(f"- step {meta['iter']} is step {step} now: an epoch has another number of steps")
    if before.per_step == batch.per_step:
        lines.append("- each step sees the same samples, augmented alike, as it would have")
    else:
        lines.append("- other samples make up a step from here on; each is augmented as it would have been")
    lines.append("- not as it would have been: what the model draws (dropout, mixing) and the batches of batch norms")
    return "\n".join(lines)


def _place(epoch: int, seen: int) -> str:
    return f"sample {seen + 1} of pass {epoch + 1}"
