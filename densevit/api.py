"""Models by name, without a config."""

import fnmatch
import inspect
from dataclasses import dataclass
from typing import Any

import torch

from densevit.contract import build_backbone
from densevit.engine.complexity import complexity
from densevit.errors import ConfigError
from densevit.features import Backbone
from densevit.model import DenseModel
from densevit.registry import BACKBONES, HEADS, MODELS, accepted_keys, required_keys, suggestion

HEAD_OF_TASK = {
    "classification": "ClassificationHead",
    "segmentation": "SegFormerHead",
    "detection": "RetinaHead",
    "instance_segmentation": "MaskRCNNHead",
    "video": "VideoHead",
    "medical": "UNETRHead",
}
# Axes of what a task looks at: images have two, clips and volumes three. It looks at either if it is not named.
AXES_OF_TASK = {"segmentation": 2, "detection": 2, "instance_segmentation": 2, "video": 3, "medical": 3}
_INPUTS = {2: "images", 3: "clips or volumes"}


def create_backbone(name: str, /, **options: Any) -> Backbone:
    """Build a backbone by the name of its variant, such as "mit_b0"; ``options`` override its arguments."""
    return build_backbone({"type": name, **options})


def create_model(
    name: str,
    /,
    task: str = "classification",
    num_classes: int = 1000,
    head: dict[str, Any] | None = None,
    neck: dict[str, Any] | None = None,
    **options: Any,
) -> DenseModel:
    """Build a backbone with the head of a task.

    Args:
        name: Variant of a backbone, see `list_models`.
        task: What the head predicts: "classification", "segmentation", "detection", "instance_segmentation", "video",
            the classes of clips, or "medical", those of the voxels of volumes. Backbones of images look at each frame
            of a clip, and at each slice of a volume along its first axis.
        num_classes: Number of classes, at least 1; `create_backbone` builds without a head.
        head: Arguments of the head, ``type`` included if it is not to be the task's usual one.
        neck: Config of the neck. By default there is none, but before detectors an FPN, and in dense tasks
            SimplePyramid where all maps have one stride.
        **options: Arguments of the backbone.

    Returns:
        A model in fp32 with ``model(x)`` -> raw outputs for a normalised ``(N, C, H, W)``, or ``(N, C, T, H, W)`` if
        the backbone is one of clips or volumes, and ``model.head.predict(outputs, metas)`` -> a prediction per sample.

    Raises:
        ConfigError: An unknown name or key, or a task that is none of the backbone's, or no classes.
    """
    if task not in HEAD_OF_TASK:
        raise ConfigError(f"unknown task {task!r}.{suggestion(task, HEAD_OF_TASK)}")
    backbone = {"type": name, **options}
    if AXES_OF_TASK.get(task) == 3 and _axes(backbone) == 2:
        backbone = {"type": "Framewise", "backbone": backbone}
    if task in ("classification", "video") and "token" in (accepted_keys(BACKBONES.get(backbone["type"])) or ()):
        backbone = {"token": True, **backbone}
    head = {"type": HEAD_OF_TASK[task], "num_classes": num_classes, **(head or {})}
    if not isinstance(head["num_classes"], int) or head["num_classes"] < 1:
        raise ConfigError(
            f"num_classes must be at least 1, not {head['num_classes']!r}: for features without a head, "
            f"densevit.create_backbone({name!r})"
        )
    if task in AXES_OF_TASK:
        _check_axes(backbone, task)
    if AXES_OF_TASK.get(task) == 2 and neck is None:
        backbone, neck = _usual_parts(backbone, head["type"])
    return MODELS.build(
        {
            "type": "DenseModel",
            "backbone": backbone,
            "neck": neck,
            "head": head,
            "precision": "fp32",
        }
    )


def _check_axes(backbone: dict[str, Any], task: str) -> None:
    """Raise `ConfigError` if a backbone of clips or volumes is to serve a task of images, or the other way round."""
    axes = _axes(backbone)
    if axes != AXES_OF_TASK[task]:
        name, seen, wanted = backbone["type"], _INPUTS[axes], _INPUTS[AXES_OF_TASK[task]]
        raise ConfigError(f"{name} is a backbone of {seen}, and {task} is a task of {wanted}: choose another of them")


def _axes(backbone: dict[str, Any]) -> int:
    with torch.device("meta"):
        return len(build_backbone(backbone).divisor)


def _usual_parts(backbone: dict[str, Any], head: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return a backbone with the maps that a dense head needs, and the neck between them, if it takes one.

    A head may name its ``usual_neck``, and the ``usual_strides`` of the levels that it gives. Maps that are finer than
    all of those are not read.
    """
    with torch.device("meta"):
        net: Any = build_backbone(backbone)
    target: Any = HEADS.get(head)
    strides: tuple[int, ...] | None = getattr(target, "usual_strides", None)
    if len({spec.stride for spec in net.specs}) == 1:
        return backbone, {"type": "SimplePyramid", **({"strides": strides} if strides else {})}
    if strides is None:
        return backbone, None
    fine = sum(spec.stride[-1] < strides[0] for spec in net.specs[:-1])
    if fine and hasattr(net, "out_indices"):  # what only leads to a map that is not read would get no gradient
        return {**backbone, "out_indices": net.out_indices[fine:]}, {**target.usual_neck, "start_level": 0}
    return backbone, {**target.usual_neck, "start_level": fine}


def list_models(pattern: str = "*") -> list[str]:
    """Return the backbones that can be built by name, and match a shell pattern such as "mit*".

    Left out are the classes that variants are made of, and what needs arguments, such as the adapters.
    """
    targets = {name: BACKBONES.get(name) for name in BACKBONES.names()}
    bases = [inspect.signature(t).return_annotation for t in targets.values() if not inspect.isclass(t)]
    complete = [name for name, t in targets.items() if t not in bases and not required_keys(t)]
    return [name for name in complete if fnmatch.fnmatch(name, pattern)]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What there is to know of a backbone before choosing it.

    Attributes:
        name: Of the variant.
        img_size: Height and width at which MACs are counted: those of the official training.
        num_frames: Frames of the clip, or depth of the volume, for which they are counted; 0 if the inputs are images.
        params: Of the classifier with 1000 classes.
        macs: Multiply-accumulates of that classifier for one image or clip; None if they were not counted.
        tasks: What `create_model` builds with it.
        weights_licence: Of the official weights.
    """

    name: str
    img_size: int
    num_frames: int
    params: int
    macs: int | None
    tasks: tuple[str, ...]
    weights_licence: str


def describe_model(name: str, count_macs: bool = True) -> ModelCard:
    """Return the card of a backbone; nothing is computed or allocated.

    Args:
        name: Of the variant.
        count_macs: Send shapes through the model to count, which takes a second or more where it is deep.

    Raises:
        ConfigError: An unknown name.
    """
    with torch.device("meta"):
        net = create_backbone(name)
        model = create_model(name)
    axes = len(net.divisor)
    tasks = tuple(t for t in HEAD_OF_TASK if AXES_OF_TASK.get(t, axes) in (axes, 3))  # images are slices too
    size = (*([net.num_frames] if net.num_frames else []), net.img_size, net.img_size)
    macs = complexity(model, size, net.in_channels)[0].macs if count_macs else None
    params = sum(p.numel() for p in model.parameters())
    return ModelCard(name, net.img_size, net.num_frames, params, macs, tasks, net.weights_licence)
