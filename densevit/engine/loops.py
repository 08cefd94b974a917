"""Training that can start at any step, and evaluation with a loss.

mmengine's iteration-based loop resumes by reading all earlier batches again, its epoch-based loop only at the
start of an epoch; its validation knows no loss.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, TestLoop, ValLoop
from torch import nn

from densevit.engine.loader import QUARANTINE, build_loader
from densevit.errors import StoppedError
from densevit.registry import LOOPS
from densevit.structures import Sample


def _batches(loop: BaseLoop, step: int) -> Iterator[list[Sample]]:
    loop.dataloader.batch_sampler.sampler.step = step
    return iter(loop.dataloader)


def order_of(loop: BaseLoop) -> Any:
    """Return what knows how many samples lie before a batch: our batch sampler, or the sampler of torch's."""
    batches = loop.dataloader.batch_sampler
    return batches if hasattr(batches, "position") else batches.sampler


def _next(loop: Any, batches: Iterator[list[Sample]]) -> list[Sample]:
    """Return the next batch, or stop the run if it is told to: after an update only, as gradients are not saved."""
    return loop.runner.stops.next(batches) if loop.runner.updated else next(batches)


def _validate(loop: Any) -> None:
    """Validate; if the run is told to stop meanwhile, do so now, or after the next update."""
    try:
        loop.runner.val_loop.run()
    except StoppedError:
        if loop.runner.updated:
            raise
        loop.runner.logger.warning(f"the validation of step {loop.runner.iter} is left out: the run is to stop")


@LOOPS.register_module()
class IterTrainLoop(IterBasedTrainLoop):
    """``max_iters`` steps over an endless stream, from whatever step was resumed.

    Args:
        runner: The run.
        dataloader: Config of the loader.
        max_iters: Number of steps.
        val_begin: Step from which on there are validations.
        val_interval: Steps from one to the next; there is one after the last step too.

    Attributes:
        ahead: Batches by which the data are ahead of the steps: not 0 after a run goes on with another batch size.
    """

    ahead = 0

    def __init__(
        self, runner: Any, dataloader: Any, max_iters: int, val_begin: int = 1, val_interval: int = 1000
    ) -> None:
        loader = build_loader(dataloader, runner.seed, Path(runner.work_dir), training=True)
        BaseLoop.__init__(self, runner, loader)  # mmengine's loop would start the workers here, at step 0
        self._max_iters, self._max_epochs = max_iters, 1
        self._iter = self._epoch = 0
        self.val_begin, self.val_interval = val_begin, val_interval
        self.stop_training = False
        dataset: Any = loader.dataset
        runner.visualizer.dataset_meta = dataset.metainfo

    def run(self) -> nn.Module:
        """Train to the end; validate every ``val_interval`` steps, and at a resumed step where that is due."""
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        batches = _batches(self, self._iter + self.ahead)
        if self._iter > 0:
            self._validate_if_due()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(_next(self, batches))
            self._validate_if_due()
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def position(self, step: int) -> tuple[int, int]:
        """Return the pass over the data in which a step begins, and how many of its samples were seen before."""
        return order_of(self).position(step + self.ahead)

    def go_on(self, step: int, epoch: int, position: tuple[int, int]) -> None:
        """Resume at a step of the schedule and a position in the data; by whole batches, none of it is skipped."""
        self._iter, self._epoch = step, epoch
        self.ahead = order_of(self).step_at(*position) - step

    def _validate_if_due(self) -> None:
        due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        if self.runner.val_loop is not None and self._iter >= self.val_begin and due:
            _validate(self)


@LOOPS.register_module()
class EpochTrainLoop(EpochBasedTrainLoop):
    """``max_epochs`` passes over the data, from whatever step of whatever epoch was resumed.

    After the last step of an epoch was resumed, its end comes first: hooks and validation.

    Args:
        runner: The run.
        dataloader: Config of the loader.
        **options: ``max_epochs``, the number of passes; ``val_begin``, the epoch from which on there are validations (1
            by default), and ``val_interval``, the epochs from one to the next (1); there is one after the last too.
    """

    def __init__(self, runner: Any, dataloader: Any, **options: Any) -> None:
        loader = build_loader(dataloader, runner.seed, Path(runner.work_dir), training=True, whole_batches=True)
        super().__init__(runner, loader, **options)
        self.steps = len(loader)
        self._max_iters = self._max_epochs * self.steps
        self._stream: Iterator[list[Sample]] | None = None

    def run(self) -> nn.Module:
        """Train to the end; validate every ``val_interval`` epochs, and at a resumed epoch where that is due."""
        self.runner.call_hook("before_train")
        if self._epoch > 0 and self._iter == self._epoch * self.steps:
            self._validate_if_due()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._validate_if_due()
        self.runner.call_hook("after_train")
        return self.runner.model

    def run_epoch(self) -> None:
        """Run the steps of the epoch that are left: none, where it was saved after the last one but before its end."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        self._stream = self._stream or _batches(self, self._iter)
        for step in range(self._iter - self._epoch * self.steps, self.steps):
            self.run_iter(step, _next(self, self._stream))
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def position(self, step: int) -> tuple[int, int]:
        """Return the pass over the data in which a step begins, and how many of its samples were seen before."""
        return order_of(self).position(step)

    def go_on(self, step: int, epoch: int, position: tuple[int, int]) -> None:
        """Resume at a position in the data, whatever the number of steps that led there; none of it is skipped."""
        self._iter = order_of(self).step_at(*position)
        begun = self._iter // self.steps
        self._epoch = epoch if epoch == begun - 1 and self._iter % self.steps == 0 else begun

    def _validate_if_due(self) -> None:
        due = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        if self.runner.val_loop is not None and self._epoch >= self.val_begin and due:
            _validate(self)


@LOOPS.register_module()
class ValidationLoop(ValLoop):
    """Metrics and the loss, each exact over any number of processes.

    Args:
        runner: The run.
        dataloader: Config of the loader.
        evaluator: Config of the metrics.
        loss: Compute the loss too. Detectors of two stages read other boxes for it than they predict.
    """

    def __init__(self, runner: Any, dataloader: Any, evaluator: Any, loss: bool = True) -> None:
        super().__init__(runner, build_loader(dataloader, runner.seed, Path(runner.work_dir)), evaluator)
        self.with_loss = loss
        self.totals: dict[str, float] = {}
        self.count = 0

    def run(self) -> dict[str, float]:
        """Return the metrics, with ``loss`` and its terms averaged over the samples.

        If the run is told to stop, hooks that have a method ``after_stopped_val(runner)`` undo what they did before.

        Raises:
            StoppedError: The run is told to stop.
        """
        self.totals, self.count = {}, 0
        self._forget_earlier()
        self.runner.call_hook("before_val")
        self.runner.call_hook("before_val_epoch")
        _share_buffers(self.runner.model)
        self.runner.model.eval()
        try:
            for index, batch in enumerate(self.runner.stops.batches(self.dataloader)):
                self.run_iter(index, batch)
        except StoppedError:
            self.runner.call_hook("after_stopped_val")
            raise
        metrics = self.evaluator.evaluate(len(self.dataloader.dataset))
        _tell_left_out(self)
        metrics.update(self._mean_losses())
        self.runner.call_hook("after_val_epoch", metrics=metrics)
        self.runner.call_hook("after_val")
        return metrics

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: list[Sample]) -> None:
        """Predict one batch, add to the metrics and to the loss."""
        if not data_batch:  # all of its samples are bad
            return
        self.runner.call_hook("before_val_iter", batch_idx=idx, data_batch=data_batch)
        model = self.runner.model
        predictions, losses = model.val_step(data_batch) if self.with_loss else (model.test_step(data_batch), {})
        self.count += len(data_batch)
        for name, value in losses.items():
            self.totals[name] = self.totals.get(name, 0.0) + value.item() * len(data_batch)
        self.evaluator.process(data_samples=predictions, data_batch=data_batch)
        self.runner.call_hook("after_val_iter", batch_idx=idx, data_batch=data_batch, outputs=predictions)

    def _forget_earlier(self) -> None:
        """Drop what earlier validations logged: mmengine logs the mean of all that it has of a loss."""
        scalars = self.runner.message_hub.log_scalars
        for name in [name for name in scalars if name.startswith("val/")]:
            del scalars[name]

    def _mean_losses(self) -> dict[str, float]:
        """Average over the samples of all ranks; a rank may have had none."""
        if not self.with_loss:
            return {}
        ranks = dist.all_gather_object((self.totals, self.count))
        names = dict.fromkeys(name for totals, _ in ranks for name in totals)
        count = sum(n for _, n in ranks)
        return {name: sum(totals.get(name, 0.0) for totals, _ in ranks) / count for name in names}


def _share_buffers(model: nn.Module) -> None:
    """Take over the first process' buffers, which are what is saved: each has its own statistics of batch norms."""
    for buffer in model.buffers():
        dist.broadcast(buffer)


@LOOPS.register_module()
class EvaluationLoop(TestLoop):
    """Metrics of the test split.

    Args:
        runner: The run.
        dataloader: Config of the loader.
        evaluator: Config of the metrics.
    """

    def __init__(self, runner: Any, dataloader: Any, evaluator: Any) -> None:
        super().__init__(runner, build_loader(dataloader, runner.seed, Path(runner.work_dir)), evaluator)
        self.count = 0

    def run(self) -> dict[str, float]:
        """Return the metrics, and say how many samples they are without."""
        self.count = 0
        self.runner.call_hook("before_test")
        self.runner.call_hook("before_test_epoch")
        self.runner.model.eval()
        for index, batch in enumerate(self.runner.stops.batches(self.dataloader)):
            self.run_iter(index, batch)
        metrics: dict[str, float] = self.evaluator.evaluate(len(self.dataloader.dataset))
        self.runner.call_hook("after_test_epoch", metrics=metrics)
        self.runner.call_hook("after_test")
        _tell_left_out(self)
        return metrics

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: list[Sample]) -> None:
        """Predict one batch and add to the metrics."""
        if not data_batch:  # all of its samples are bad
            return
        self.runner.call_hook("before_test_iter", batch_idx=idx, data_batch=data_batch)
        predictions = self.runner.model.test_step(data_batch)
        self.count += len(data_batch)
        self.evaluator.process(data_samples=predictions, data_batch=data_batch)
        self.runner.call_hook("after_test_iter", batch_idx=idx, data_batch=data_batch, outputs=predictions)


def _tell_left_out(loop: "ValidationLoop | EvaluationLoop") -> None:
    """Warn of samples that could not be read, and are not in the scores."""
    scored, total = sum(dist.all_gather_object(loop.count)), len(loop.dataloader.dataset)
    if scored < total:
        loop.runner.logger.warning(
            f"{scored} of {total} samples are scored, the others cannot be read: see {QUARANTINE} in the work_dir"
        )
