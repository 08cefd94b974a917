"""Models by name, without a config."""

import fnmatch
from typing import Any

from densevit.errors import ConfigError
from densevit.features import Backbone
from densevit.model import DenseModel
from densevit.registry import BACKBONES, MODELS, accepted_keys, suggestion

HEAD_OF_TASK = {"classification": "ClassificationHead", "segmentation": "SegFormerHead"}


def create_backbone(name: str, **options: Any) -> Backbone:
    """Build a backbone by the name of its variant, such as "mit_b0"; ``options`` override its arguments."""
    return BACKBONES.build({"type": name, **options})


def create_model(
    name: str,
    task: str = "classification",
    num_classes: int = 1000,
    head: dict[str, Any] | None = None,
    **options: Any,
) -> DenseModel:
    """Build a backbone with the head of a task.

    Args:
        name: Variant of a backbone, see `list_models`.
        task: What the head predicts: "classification" or "segmentation".
        num_classes: Number of classes.
        head: Arguments of the head, ``type`` included if it is not to be the task's usual one.
        **options: Arguments of the backbone.

    Returns:
        A model in fp32 with ``model(x)`` -> raw outputs for a normalised ``(N, C, H, W)``.

    Raises:
        ConfigError: An unknown name or key.
    """
    if task not in HEAD_OF_TASK:
        raise ConfigError(f"unknown task {task!r}.{suggestion(task, HEAD_OF_TASK)}")
    if task == "classification" and "token" in (accepted_keys(BACKBONES.get(name)) or ()):
        options = {"token": True, **options}
    return MODELS.build(
        {
            "type": "DenseModel",
            "backbone": {"type": name, **options},
            "head": {"type": HEAD_OF_TASK[task], "num_classes": num_classes, **(head or {})},
            "precision": "fp32",
        }
    )


def list_models(pattern: str = "*") -> list[str]:
    """Return the registered backbones whose names match a shell pattern such as "mit*"."""
    return [name for name in BACKBONES.names() if fnmatch.fnmatch(name, pattern)]
