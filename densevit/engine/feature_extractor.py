"""Features of data: what the backbone of a config sees in the samples of a split."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from densevit.contract import build_backbone
from densevit.data.batch import collate_batch
from densevit.engine.checkpoint import find_fault
from densevit.engine.environment import choose_device
from densevit.engine.loader import one_thread
from densevit.errors import CheckpointError, ConfigError
from densevit.registry import DATASETS, MODELS
from densevit.structures import Sample
from densevit.weights import load_weights

PREPARATION = ("transforms", "sampling")  # arguments of datasets by which training augments


class FeatureExtractor:
    """The backbone and the preprocessing of a config, in evaluation mode and single precision.

    A feature is the token of the backbone or, where it gives none, the mean over space, and time, of its last map;
    that of a video is the mean over the views that the config tests on.

    Args:
        cfg: A config of any task.
        checkpoint: Of a run, or an official release; its head is not read.
        device: Where to run; by default the GPU if there is one.

    Raises:
        CheckpointError: The checkpoint is missing, corrupt, or does not cover the backbone.
    """

    def __init__(self, cfg: Config, checkpoint: str | Path, device: str | None = None) -> None:
        if (fault := find_fault(Path(checkpoint))) is not None:
            raise CheckpointError(f"{checkpoint} {fault}")
        self.device = choose_device(device)
        self.backbone = build_backbone(cfg.model.backbone)
        load_weights(self.backbone, checkpoint)
        options = {"type": "ImagePreprocessor", **(cfg.model.get("data_preprocessor") or {})}
        self.preprocessor: nn.Module = MODELS.build(options, {"divisor": self.backbone.divisor}).to(self.device)
        self.backbone.to(self.device).eval()
        inference = cfg.model.get("inference") if len(self.backbone.divisor) == 3 else None
        views = MODELS.build(inference) if inference else None
        # Others slide over logits: features are of the whole volume.
        self.views: Callable[..., Tensor] | None = views if hasattr(views, "views") else None
        loader = cfg.get("test_dataloader") or cfg.get("val_dataloader") or {}
        self.loader = {"batch_size": loader.get("batch_size", 1), "num_workers": loader.get("num_workers", 0)}

    @torch.inference_mode()
    def __call__(self, dataset: Any, indices: Sequence[int], title: str) -> Tensor:
        """Return the features ``(N, C)`` of samples of a dataset, showing the progress under ``title``."""
        subset = Subset(dataset, indices)
        loader = DataLoader(subset, collate_fn=collate_batch, worker_init_fn=one_thread, **self.loader)
        return torch.cat([self._features(batch).cpu() for batch in track(loader, title, len(loader))])

    def _features(self, batch: Sequence[Sample]) -> Tensor:
        inputs = self.preprocessor(batch)["inputs"]
        alike = len({x.shape for x in inputs}) == 1
        groups = [torch.stack(inputs)] if alike else [x[None] for x in inputs]
        if self.views is None:
            return torch.cat([self._vectors(group) for group in groups])
        return torch.cat([self.views(self._vectors, group).mean(dim=1) for group in groups])

    def _vectors(self, x: Tensor) -> Tensor:
        found = self.backbone(x)
        return found.maps[-1].flatten(2).mean(dim=2) if found.token is None else found.token


def split_to_evaluate(cfg: Config, split: str) -> Any:
    """Return the dataset of a split, "train", "val" or "test"; that of training is prepared as the test split is.

    Raises:
        ConfigError: The config has no such split, or "train" and no test split.
    """
    for name in ("train", "test") if split == "train" else (split,):
        if not cfg.get(f"{name}_dataloader"):
            raise ConfigError(f"the config has no {name}_dataloader: features of its data are asked for")
    options = dict(cfg[f"{split}_dataloader"].dataset)
    if split == "train":
        test = cfg.test_dataloader.dataset
        options |= {key: test[key] for key in PREPARATION if key in test}
    return DATASETS.build(options)
