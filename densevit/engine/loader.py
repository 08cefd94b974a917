"""Dataset and DataLoader from a config.

mmengine seeds workers equally in every epoch and resumes by replaying the data. Here the order comes from
`TrainSampler`, which starts anywhere, and each sample's augmentation from its key, whatever the workers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import torch
from mmengine.dist import get_dist_info
from torch.utils.data import DataLoader

from densevit.data.batch import collate_batch
from densevit.data.dataset import DenseDataset
from densevit.data.quarantine import Quarantine
from densevit.data.sampler import EvalSampler, MultiScaleBatchSampler, TrainSampler
from densevit.registry import DATASETS

QUARANTINE = "bad_samples.jsonl"


def build_loader(
    cfg: Mapping[str, Any], seed: int, work_dir: Path, training: bool = False, whole_batches: bool = False
) -> DataLoader[Any]:
    """Build the loader of one split.

    Args:
        cfg: ``dataset`` and ``batch_size`` (per process), arguments of `torch.utils.data.DataLoader`, and in
            training ``repeats``, see `TrainSampler`, and ``multi_scale``, see `MultiScaleBatchSampler`.
        seed: Seed of the run.
        work_dir: Where unreadable samples are recorded.
        training: Endless and shuffled, bad samples replaced; else each sample once, bad ones left out.
        whole_batches: See `TrainSampler`.
    """
    options = {"num_workers": 2, "shuffle": training, "pin_memory": torch.cuda.is_available(), **cfg}
    dataset: DenseDataset = DATASETS.build(options.pop("dataset"))
    dataset.seed = seed
    dataset.quarantine = Quarantine(work_dir / QUARANTINE, total=len(dataset), replace=training)
    rank, world_size = get_dist_info()
    batch_size, shuffle, repeats = options.pop("batch_size"), options.pop("shuffle"), options.pop("repeats", 1)
    multi_scale = options.pop("multi_scale", None)
    batching: dict[str, Any] = {"batch_size": batch_size, "sampler": EvalSampler(len(dataset), rank, world_size)}
    if training:
        order = TrainSampler(len(dataset), batch_size, seed, shuffle, whole_batches, rank, world_size, repeats)
        batching["sampler"] = order
        if multi_scale:
            batching = {"batch_sampler": MultiScaleBatchSampler(order, batch_size, **multi_scale)}
    return DataLoader(
        dataset,
        **batching,
        collate_fn=collate_batch,
        worker_init_fn=one_thread,
        persistent_workers=options["num_workers"] > 0,
        **options,
    )


def one_thread(worker: int) -> None:
    """Keep a worker to one thread: there are as many workers as cores, so that more only contend."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
