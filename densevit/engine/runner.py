"""mmengine's Runner with its defects on today's torch mended; each override says which."""

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import barrier, broadcast_object_list, is_main_process
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel, convert_sync_batchnorm, is_model_wrapper
from mmengine.runner import Runner as MMEngineRunner
from torch import nn

from densevit import __version__
from densevit.engine import lr_scaling, manifest
from densevit.engine.checkpoint import find_latest, load_model, save_checkpoint
from densevit.engine.checkpoint_meta import meta_of
from densevit.engine.config_trust import check_types
from densevit.engine.failures import explained, raise_on_full_disk
from densevit.engine.launch import join_group
from densevit.engine.plain_config import to_plain
from densevit.engine.position import Batch, changes, entries
from densevit.engine.progress import ProgressHook
from densevit.engine.run_folder import locked, name_of_logs
from densevit.engine.schedules import reach
from densevit.engine.sharded_checkpoint import clean, save_folder
from densevit.engine.sharding import mesh_of, reshard, shard, split_state
from densevit.engine.stopping import Stops, stoppable
from densevit.errors import CheckpointError, ConfigError
from densevit.weights import load_weights

ALWAYS = {
    "step_seed": {"type": "StepSeedHook"},
    "non_finite": {"type": "NonFiniteLossHook"},
    "bounded_history": {"type": "BoundedHistoryHook"},
    "sharding": {"type": "ShardingHook"},
    "bad_samples": {"type": "BadSamplesHook"},
}

MMENGINE_HOOKS = {"checkpoint", "logger", "param_scheduler", "runtime_info", "sampler_seed", "timer"}  # its defaults

NEEDED = {"optimizer", "param_schedulers"}  # to resume a checkpoint, and of its meta:
NEEDED |= {"iter", "epoch", "seed", "schedule", "data_epoch", "data_seen", *Batch._fields}

LENGTHY = (
    "\n------------------------------------------------------------\nSystem environment",
    "Config:\n",
    "Hooks will be executed",
    "paramwise_options",
    "Distributed training is not used",
    "Exp name:",
)


class Runner(MMEngineRunner):
    """Trains, validates and tests what a config describes.

    A run is exact: the order of samples, their augmentation and the model's randomness are functions of the
    seed and the step, so that a run resumed at any checkpoint ends with the weights of one never interrupted.
    """

    # of mmengine's Runner, which has no types
    _train_loop: Any
    _val_loop: Any
    _test_loop: Any
    _has_loaded: bool
    _timestamp: str
    _names: ClassVar[set[str]] = set()  # of the logs of all runs of this process

    @classmethod
    def from_cfg(cls, cfg: Config) -> "Runner":
        """Also see to it that no ``type`` is a dotted path, which mmengine would import."""
        check_types(cfg)
        return super().from_cfg(cfg)

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Keep the environment, the config and lists of parameters off the terminal: they are in the log file."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.addFilter(lambda record: not record.getMessage().startswith(LENGTHY))
            elif isinstance(handler, logging.FileHandler):
                raise_on_full_disk(handler)
        return logger

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Join the other processes by ourselves, see `densevit.engine.launch`.

        And give each run its own name: mmengine's is the second of the start, and a second run of the same second, or
        one that begins after the clock was set back, would overwrite the log of the first.
        """
        if self.distributed and not torch.distributed.is_initialized():
            join_group(self.launcher, env_cfg.get("dist_cfg", {}))
        super().setup_env(env_cfg)
        name = [name_of_logs(self._timestamp, Path(self.work_dir), self._names)]
        broadcast_object_list(name)
        self._timestamp = name[0]
        self._names.add(name[0])

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """Also split the model, and wrap on the CPU, where mmengine passes device ids that DDP refuses."""
        if self.distributed and self._parallel() == "fsdp":
            return self._shard(model.to(get_device()))
        if self.distributed and model_wrapper_cfg is None and not torch.cuda.is_available():
            unused = self.cfg.get("find_unused_parameters", False)
            return MMDistributedDataParallel(module=model, broadcast_buffers=False, find_unused_parameters=unused)
        return super().wrap_model(model_wrapper_cfg, model)

    def _parallel(self) -> str:
        return (self.cfg.get("parallel") or {}).get("type", "ddp")

    def _shard(self, model: Any) -> nn.Module:
        if self.cfg.get("sync_bn"):
            model = convert_sync_batchnorm(model, self.cfg.sync_bn)
        device = torch.device(get_device())
        # On CPUs, layer norm takes no weights of another type than its input's, and autocast does not cast them.
        low = device.type != "cpu" and model.computes_in_bf16(device.type)
        options = {key: value for key, value in self.cfg.parallel.items() if key != "type"}
        blocks = shard(model, device, low=low, **options)
        self.logger.info(
            f"fsdp: the model is split over {self.world_size} processes, {blocks} blocks of the backbone one by one"
        )
        return model

    def _init_model_weights(self) -> None:
        """Leave a split model alone: mmengine would send all processes the part of the first one."""
        if mesh_of(self.model) is None:
            super()._init_model_weights()

    def build_model(self, model: Any) -> nn.Module:
        """Also load ``model.weights``, unless a checkpoint is going to be resumed."""
        weights = model.pop("weights", None) if isinstance(model, dict) else None
        built = super().build_model(model)
        if weights is not None and not self._resume and self._load_from is None:
            load_weights(built, weights, verbose=is_main_process())
        return built

    def build_train_loop(self, loop: Any) -> Any:
        """Use our loops, which start at any step, for ``by_epoch`` True and False."""
        if isinstance(loop, dict) and "type" not in loop:
            loop = dict(loop)
            loop["type"] = "EpochTrainLoop" if loop.pop("by_epoch", "max_epochs" in loop) else "IterTrainLoop"
        return super().build_train_loop(loop)

    def build_val_loop(self, loop: Any) -> Any:
        """Use our loop, which reports the loss too."""
        return super().build_val_loop({"type": "ValidationLoop", **loop} if isinstance(loop, dict) else loop)

    def build_test_loop(self, loop: Any) -> Any:
        """Use our loop, which builds our loader."""
        return super().build_test_loop({"type": "EvaluationLoop", **loop} if isinstance(loop, dict) else loop)

    def scale_lr(self, optim_wrapper: Any, auto_scale_lr: dict[str, Any] | None = None) -> None:
        """Scale the learning rates of all groups, and the one that is logged, to the batch size."""
        scale = lr_scaling.factor(auto_scale_lr, self.batch.total)
        for group in optim_wrapper.param_groups:
            group["lr"] *= scale

    def build_param_scheduler(self, scheduler: Any) -> Any:
        """Scale absolute values of schedules, such as ``eta_min``, as the learning rates are."""
        scale = lr_scaling.factor(self.auto_scale_lr, self.batch.total)
        return super().build_param_scheduler(lr_scaling.scale_schedule(scheduler, scale))

    def register_default_hooks(self, hooks: dict[str, Any] | None = None) -> None:
        """Add the hooks that no run does without, and leave out those that are None, not mmengine's own only."""
        hooks = {**ALWAYS, **(hooks or {})}
        super().register_default_hooks({k: v for k, v in hooks.items() if v is not None or k in MMENGINE_HOOKS})

    @cached_property
    def stops(self) -> Stops:
        """Whether a signal has asked the run to stop."""
        return Stops()

    def train(self) -> nn.Module:
        """Check what can be checked before hours are spent, then train, as the only run in the work_dir.

        Raises:
            StoppedError: A signal stopped the run between two steps; it is saved.
        """
        alone = locked(Path(self.work_dir)) if is_main_process() else nullcontext()
        with self._display(), explained(self), alone:
            self._check_before_training()
            with stoppable(self, training=True):
                return super().train()

    def _check_before_training(self) -> None:
        if self.distributed and self.cfg.get("sync_bn") and not torch.cuda.is_available():
            raise ConfigError("sync_bn needs GPUs, and there is none: leave it out by --cfg-options sync_bn=None")
        if is_main_process():
            self._guard_work_dir()
        barrier()
        self._train_loop = self.build_train_loop(self._train_loop)
        if self._val_loop is not None:
            self._val_loop = self.build_val_loop(self._val_loop)
        loops = list(filter(None, (self._train_loop, self._val_loop)))
        classes = [list(loop.dataloader.dataset.classes) for loop in loops]
        if classes[0] != classes[-1]:
            difference = _difference(*classes)
            raise ConfigError(f"the classes to train and to validate differ: {difference}; make them the same")
        for loop in loops:
            self._check_dataset(loop.dataloader.dataset)
        self._log_batch_size()
        if beyond := reach(self.cfg.get("param_scheduler"), self.cfg.train_cfg):
            self.logger.warning(beyond)
        if self._parallel() == "fsdp" and not self.distributed:
            self.logger.warning("parallel: fsdp splits a model over processes, and there is one: start with torchrun")

    def test(self) -> dict[str, float]:
        """Check the data, then test.

        Raises:
            StoppedError: A signal stopped the test between two batches.
        """
        with self._display(), explained(self):
            self._test_loop = self.build_test_loop(self._test_loop)
            self._check_dataset(self._test_loop.dataloader.dataset)
            with stoppable(self, training=False):
                return super().test()

    def load_or_resume(self) -> None:
        """Resume from the newest intact checkpoint, never by unpickling."""
        if self._has_loaded or not (self._resume or self._load_from):
            return
        path = Path(self._load_from) if self._load_from else find_latest(Path(self.work_dir), self.logger.warning)
        if path is None:
            self.logger.warning(f"nothing to resume in {self.work_dir}: training starts from the beginning")
        elif self._resume:
            self.resume(str(path))
        else:
            self.load_checkpoint(str(path))
        self._has_loaded = True

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load all weights of the model, from a checkpoint of ours or an official release; return what it holds.

        Raises:
            CheckpointError: Missing, corrupt, or of another model.
        """
        checkpoint = load_model(self._bare_model(), Path(filename))
        self.logger.info(f"loaded {filename}")
        trained = meta_of(checkpoint).get("dataset", {}).get("classes")
        for loop in (self._train_loop, self._test_loop):
            own = list(loop.dataloader.dataset.classes) if hasattr(loop, "dataloader") else trained
            if trained and trained != own:
                self.logger.warning(f"{filename} was trained with other classes: {_difference(trained, own)}")
        return checkpoint

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Continue a run: weights, optimizer, position in the data, and the schedule of the config.

        mmengine's checkpoints would overwrite a changed schedule; here one that has changed is built anew.
        """
        checkpoint = self.load_checkpoint(filename)
        meta = meta_of(checkpoint)
        if lacking := NEEDED - {*meta, *checkpoint}:
            text = ", ".join(sorted(lacking))
            raise CheckpointError(f"{filename} cannot be resumed: it holds no {text}. Pass it as --weights")
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        self._bare_model().load_state_dict(checkpoint["state_dict"])  # a hook, EMA's, may have exchanged the weights
        self.train_loop.go_on(meta["iter"], meta["epoch"], (meta["data_epoch"], meta["data_seen"]))
        grouped = self.cfg.train_dataloader.get("group_by_aspect", False)
        if changed := changes(meta, self.batch, self.iter, self.train_loop.position(self.iter), grouped):
            self.logger.warning(changed)
        if meta["seed"] != self.seed:
            self.logger.warning(f"resuming with the checkpoint's seed {meta['seed']} in place of {self.seed}")
            self._randomness_cfg.update(seed=meta["seed"])
            self.set_randomness(**self._randomness_cfg)
        fresh = [{k: v for k, v in group.items() if k != "params"} for group in self.optim_wrapper.param_groups]
        self.optim_wrapper.load_state_dict(
            split_state(checkpoint["optimizer"], self.optim_wrapper.optimizer.param_groups)
        )
        if meta["schedule"] == self._schedule():
            for scheduler, state in zip(self.param_schedulers or (), checkpoint["param_schedulers"], strict=True):
                scheduler.load_state_dict(state)
        else:
            self.logger.warning("the schedule or its scale has changed: the new one applies from here on")
            for group, settings in zip(self.optim_wrapper.param_groups, fresh, strict=True):
                group.update(settings)
            self._fast_forward_schedule()
        self._has_loaded = True
        self.logger.info(f"resumed {filename} at step {self.iter}, epoch {self.epoch}")

    def save_checkpoint(self, name: str, step: int, epoch: int, score: float | None = None) -> None:
        """Write a checkpoint of plain values and tensors atomically into the work_dir.

        That of a split model is a folder, ``iter_10`` for ``iter_10.pth``, to which each process writes its part.
        """
        reshard(self._bare_model())  # a validation has gathered the weights, of which each process saves its part
        split = mesh_of(self._bare_model()) is not None
        checkpoint: dict[str, Any] = {
            "meta": {
                "iter": step,
                "epoch": epoch,
                "seed": self.seed,
                "schedule": self._schedule(),
                "config": to_plain(self.cfg),
                "config_name": Path(self.cfg.filename or "").name,
                **entries(self.batch, self.train_loop.position(step)),
                "dataset": self.train_dataloader.dataset.metainfo,
                "densevit": __version__,
                "torch": str(torch.__version__),
            },
            "state_dict": {k: v if split else v.cpu() for k, v in self._bare_model().state_dict().items()},
        }
        if self.updated:  # else gradients are lacking, and the run could not go on from here
            checkpoint["optimizer"] = self.optim_wrapper.state_dict()
            checkpoint["param_schedulers"] = [s.state_dict() for s in self.param_schedulers or ()]
        self.call_hook("before_save_checkpoint", checkpoint=checkpoint)
        if split:
            save_folder(checkpoint, Path(self.work_dir) / name.removesuffix(".pth"), score)
        elif is_main_process():
            save_checkpoint(checkpoint, Path(self.work_dir) / name, score)

    @contextmanager
    def _display(self) -> Iterator[None]:
        """Give the terminal back before an error is printed: mmengine calls no hook after one."""
        try:
            yield
        finally:
            for hook in self.hooks:
                if isinstance(hook, ProgressHook):
                    hook.close()

    def _bare_model(self) -> nn.Module:
        return self.model.module if is_model_wrapper(self.model) else self.model

    @property
    def updated(self) -> bool:
        """Whether the weights are updated by all steps so far: else gradients are being accumulated."""
        return bool(self.optim_wrapper.should_update())

    @property
    def batch(self) -> Batch:
        """What one update is made of."""
        each = self.train_loop.dataloader.batch_sampler.batch_size
        return Batch(each, self.world_size, (self.cfg.get("optim_wrapper") or {}).get("accumulative_counts", 1))

    def _schedule(self) -> str:
        """What the learning rate is a function of, as text."""
        schedule = {key: self.cfg.get(key) for key in ("param_scheduler", "train_cfg", "optim_wrapper")}
        schedule["lr_scale"] = lr_scaling.factor(self.auto_scale_lr, self.batch.total)
        schedule["steps_per_epoch"] = getattr(self.train_loop, "steps", None)  # of loops that count epochs
        return json.dumps(schedule, sort_keys=True, default=repr)

    def _fast_forward_schedule(self) -> None:
        """Step the schedulers, which start at step 0, to where the run is."""
        steps_per_epoch = len(self.train_loop.dataloader)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of")  # no optimizer has stepped yet, as is meant
            for step in range(1, self.iter + 1):
                for scheduler in self.param_schedulers or ():
                    ends = step % steps_per_epoch == 0 and step // steps_per_epoch <= self.epoch
                    if ends or not scheduler.by_epoch:
                        scheduler.step()

    def _guard_work_dir(self) -> None:
        """Refuse to mix two runs in one folder; clear and mend what a killed process left half-written."""
        folder = Path(self.work_dir)
        clean(folder)
        if self._resume:
            manifest.repair(folder, self.logger.warning)
        elif manifest.holds_checkpoints(folder):
            raise ConfigError(
                f"{folder} holds checkpoints of an earlier run. Go on with it by --resume, or choose another --work-dir"
            )

    def _check_dataset(self, dataset: Any) -> None:
        model: Any = self._bare_model()
        expected, classes = model.head.num_classes, len(dataset.classes)
        if classes != expected:
            raise ConfigError(
                f"the dataset has {classes} classes ({', '.join(dataset.classes[:5])}{', ...' * (classes > 5)}) but "
                f"model.head.num_classes is {expected}: make them equal"
            )
        mode = self.cfg.get("check_data", "sample")
        if mode != "off" and is_main_process():
            dataset.check(mode)
        barrier()

    def _log_batch_size(self) -> None:
        """Say what the learning rate is really used with: recipes are for a total batch size."""
        rate = ((self.cfg.get("optim_wrapper") or {}).get("optimizer") or {}).get("lr")
        said = lr_scaling.statement(self.auto_scale_lr, self.batch.total, rate)
        self.logger.info(f"batch size: {self.batch}" + (f"; {said}" if said else ""))


def _difference(first: Sequence[str], second: Sequence[str]) -> str:
    """Say where two lists of classes differ."""
    if len(first) != len(second):
        return f"{len(first)} ({', '.join(first[:5])} ...) and {len(second)} ({', '.join(second[:5])} ...)"
    index = next(i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)
    return f"number {index} is {first[index]!r} and {second[index]!r}"
