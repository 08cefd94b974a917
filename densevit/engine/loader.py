"""Dataset and DataLoader from a config.

mmengine seeds workers equally in every epoch and resumes by replaying the data. Here the order comes from
`TrainSampler`, which starts anywhere, and each sample's augmentation from its key, whatever the workers.
"""

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.dist import get_dist_info
from torch.utils.data import DataLoader, get_worker_info

from densevit.data.batch import collate_batch
from densevit.data.dataset import DenseDataset
from densevit.data.grouped_sampler import GroupedBatchSampler
from densevit.data.quarantine import Quarantine
from densevit.data.sampler import EvalSampler, MultiScaleBatchSampler, TrainSampler
from densevit.data.worker_notes import WorkerNotes
from densevit.engine.stopping import STOP_SIGNALS
from densevit.errors import ConfigError
from densevit.registry import DATASETS

QUARANTINE = "bad_samples.jsonl"
TIMEOUT = 480  # seconds without a batch; NCCL gives up after 600, and could not name the file


def build_loader(
    cfg: Mapping[str, Any], seed: int, work_dir: Path, training: bool = False, whole_batches: bool = False
) -> DataLoader[Any]:
    """Build the loader of one split.

    Args:
        cfg: ``dataset`` and ``batch_size`` (per process), arguments of `torch.utils.data.DataLoader`, and in
            training ``repeats``, see `TrainSampler`, ``multi_scale``, see `MultiScaleBatchSampler`, and
            ``group_by_aspect``: batches of images that are all wider than high, or all not. ``timeout`` is after how
            many seconds without a batch its workers count as hung.
        seed: Seed of the run.
        work_dir: Where unreadable samples are recorded.
        training: Endless and shuffled, bad samples replaced; else each sample once, bad ones left out.
        whole_batches: See `TrainSampler`.

    Raises:
        ConfigError: ``group_by_aspect`` of a dataset that does not know the aspects of its images.
    """
    options = {"num_workers": 2, "shuffle": training, "pin_memory": torch.cuda.is_available(), **cfg}
    dataset: DenseDataset = DATASETS.build(options.pop("dataset"))
    dataset.seed = seed
    dataset.quarantine = Quarantine(work_dir / QUARANTINE, total=len(dataset), replace=training)
    if options["num_workers"] > 0:
        options.setdefault("timeout", TIMEOUT)
        dataset.notes = WorkerNotes(options["num_workers"])
    else:
        options.pop("timeout", None)  # of workers
    rank, world_size = get_dist_info()
    batch_size, shuffle, repeats = options.pop("batch_size"), options.pop("shuffle"), options.pop("repeats", 1)
    multi_scale, by_aspect = options.pop("multi_scale", None), options.pop("group_by_aspect", False)
    batching: dict[str, Any] = {"batch_size": batch_size, "sampler": EvalSampler(len(dataset), rank, world_size)}
    if training:
        order = TrainSampler(len(dataset), batch_size, seed, shuffle, whole_batches, rank, world_size, repeats)
        batching["sampler"] = order
        if multi_scale:
            batching = {"batch_sampler": MultiScaleBatchSampler(order, batch_size, **multi_scale)}
        elif by_aspect:
            batching = {"batch_sampler": GroupedBatchSampler(order, batch_size, _aspects(dataset))}
    return DataLoader(
        dataset,
        **batching,
        collate_fn=collate_batch,
        worker_init_fn=start_worker,
        persistent_workers=options["num_workers"] > 0,
        **options,
    )


def _aspects(dataset: DenseDataset) -> np.ndarray:
    groups: np.ndarray | None = getattr(dataset, "groups", None)
    if groups is None:
        raise ConfigError(
            f"train_dataloader.group_by_aspect: {type(dataset).__name__} does not know the aspects of its images; "
            "leave group_by_aspect out"
        )
    return groups


def start_worker(worker: int) -> None:
    """Prepare a worker of a run: it leaves signals to the main process, which still needs it, and notes what it reads.

    Ctrl-C reaches all processes of a terminal, and SLURM and torchrun signal all of a job.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    info: Any = get_worker_info()
    info.dataset.notes.enter()
    one_thread(worker)


def one_thread(worker: int) -> None:
    """Keep a worker to one thread: there are as many workers as cores, so that more only contend."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
