"""Loading of weights: our checkpoints, official releases and other libraries' layouts. No file is ever executed."""

import argparse
import inspect
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from densevit.checkpoint_folder import read_folder
from densevit.errors import CheckpointError
from densevit.features import Backbone, Head, Neck
from densevit.registry import BACKBONES

State = dict[str, Tensor]

# Under what checkpoints keep their weights, the preferred first.
_WRAPPERS = ("state_dict", "model_state", "model", "model_ema", "teacher")
_JAX_WRAPPERS = ("params/", "opt/target/")
_PARTS = ("backbone", "neck", "head")
# What our, mmsegmentation's, classification libraries', mmdetection's and mmaction2's files call the head.
_HEADS = ("head", "heads", "decode_head", "classifier", "fc", "bbox_head", "cls_head")
# Beside the head or instead of it in mmsegmentation's, mmdetection's and detectron2's files, in it here.
_PARTS_OF_HEADS = ("auxiliary_head", "rpn_head", "roi_head", "proposal_generator", "roi_heads")
# Batch norm counts its steps; nothing reads the count, and not every library stores it.
_COUNTER = "num_batches_tracked"
# What checkpoints of mmengine hold in their log of scalars: a name in a pickle that is called to make an object of it.
_LOG_OF_MMENGINE = (
    "builtins.getattr",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
)
# Under what the header of a published model has the JSON that is ``meta`` in a checkpoint of ours.
HEADER = "densevit"


@dataclass
class LoadReport:
    """What became of the tensors of a model and of a file. Step counters of batch norms are left out.

    Attributes:
        source: The file, or "a state dict".
        totals: Number of tensors per part of the model.
        matched: Names of those taken from the file, the resized ones among them.
        resized: Names of those that had to be adapted, and how.
        completed: Names of those that a backbone of clips made out of the weights of an image model.
        skipped: Names of those left as they were because the file's have another shape, and which.
        missing: Names of those left as they were because the file has none.
        unexpected: Names in the file of what belongs nowhere.
    """

    source: str
    totals: dict[str, int] = field(default_factory=dict)
    matched: list[str] = field(default_factory=list)
    resized: dict[str, str] = field(default_factory=dict)
    completed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = []
        for part, total in self.totals.items():
            loaded = sum(name.startswith(f"{part}.") for name in self.matched)
            counts.append(f"{part} {loaded}/{total} tensors ({100 * loaded // max(total, 1)} %)")
        lines = [f"loaded {self.source}: {', '.join(counts)}"]
        if self.completed:
            lines.append(f"  made from the weights of an image model: {_shorten(self.completed)}")
        lines += [f"  resized: {name}, {how}" for name, how in self.resized.items()]
        lines += [f"  skipped: {name}, {how}" for name, how in self.skipped.items()]
        if self.missing:
            lines.append(f"  missing: {_shorten(self.missing)}")
        if self.unexpected:
            lines.append(f"  unexpected: {_shorten(self.unexpected)}")
        return "\n".join(lines)


def load_weights(
    model: nn.Module,
    source: str | Path | Mapping[str, Any],
    allow_partial: bool = False,
    verbose: bool = True,
) -> LoadReport:
    """Copy weights into ``model``, which is not touched if that fails.

    Args:
        model: A backbone, or a model with the attributes ``backbone``, ``head`` and perhaps ``neck``.
        source: File of safetensors, NumPy or PyTorch, folder of a run of several processes, or what such holds.
        allow_partial: Accept weights that leave tensors of the backbone as they are.
        verbose: Print the report.

    Raises:
        CheckpointError: The file is missing, corrupt or unsafe, or does not cover the backbone.
    """
    report = LoadReport(str(source) if isinstance(source, str | Path) else "a state dict")
    content = read_file(Path(source)) if isinstance(source, str | Path) else source
    modules = {"backbone": model}
    if not isinstance(model, Backbone):
        modules = {name: part for name, part in model.named_children() if name in _PARTS}
    states = _split(_name_parts(_unwrap(content, report.source)), modules["backbone"], report)
    states = _translate_parts(modules, states, report)
    fitted = {part: _fit(part, module, states[part], report) for part, module in modules.items()}
    report.unexpected += [f"{part}.{key}" for part in states.keys() - modules.keys() for key in states[part]]
    if not allow_partial:
        _check_coverage(modules["backbone"], states["backbone"], report)
    for part, module in modules.items():
        module.load_state_dict(fitted[part], strict=False)
    if verbose:
        print(report)
    return report


def read_file(path: Path) -> Any:
    """Read a file of safetensors, NumPy (.npz) or PyTorch on the CPU, without executing anything in it.

    Or the folder that several processes wrote of a model that was split over them, whole.
    A published model gives what a checkpoint does: its weights as ``state_dict``, what its header says as ``meta``.

    Raises:
        CheckpointError: It is missing, corrupt, or holds more than tensors and plain values.
    """
    if re.match(r"\w\w+:/", str(path)):  # one slash: a Path has lost the other
        raise CheckpointError(f"{path} is an address, and nothing is downloaded: fetch the file and name its path")
    if path.is_dir():
        return read_folder(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file" if path.exists() else f"{path} does not exist")
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        if path.suffix == ".npz":
            return _read_npz(path)
        # Official releases keep their arguments in a Namespace, which holds values and runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace, *((_Inert, name) for name in _LOG_OF_MMENGINE)]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    # What a damaged file raises depends on the byte.
    except Exception as error:
        unsafe = re.search(r"GLOBAL ([\w.]+)", str(error))
        if unsafe is not None:
            raise CheckpointError(
                f"{path} asks to run {unsafe[1]}, which could do anything. If you trust the file, convert it to "
                "safetensors in an environment that may be lost, and load the result"
            ) from error
        # What torch says before this advises to execute the file.
        reason = str(error).rpartition("WeightsUnpickler error: ")[2].strip().partition("\n")[0].partition(". ")[0]
        raise CheckpointError(
            f"{path} is corrupt or no checkpoint; fetch it again ({reason or type(error).__name__})"
        ) from error


class _Inert:
    """Stands for an object of a checkpoint that is not wanted: it takes all, and keeps and runs nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _read_safetensors(path: Path) -> Any:
    with safetensors.safe_open(path, "pt") as file:
        header = (file.metadata() or {}).get(HEADER)
    state = safetensors.torch.load_file(path)
    return state if header is None else {"meta": json.loads(header), "state_dict": state}


def _read_npz(path: Path) -> State:
    """Read the weights of a release of JAX, which may have others' state beside them."""
    state: State = {}
    with np.load(path, allow_pickle=False) as file:
        start = next((s for s in _JAX_WRAPPERS if any(key.startswith(s) for key in file.files)), "")
        for key in (key for key in file.files if key.startswith(start)):
            try:
                array = file[key]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                raise CheckpointError(
                    f"{path} holds {key} as a pickle, which could do anything when it is read. If you trust the file, "
                    "save its arrays again, without objects, in an environment that may be lost, and load the result"
                ) from error
            bf16 = array.dtype.str == "|V2"  # for want of a name: NumPy does not know it
            value = torch.from_numpy(array.view(np.int16) if bf16 else array)
            state[key.removeprefix(start)] = value.view(torch.bfloat16) if bf16 else value
    return state


def _unwrap(content: Any, source: str) -> State:
    """Find the weights in what a file holds, and strip what wrappers of the model put before their names.

    The "/" in names of JAX is read as ".".
    """
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    found = content if isinstance(content, Mapping) else {}
    tensors = {key.replace("/", "."): value for key, value in found.items() if isinstance(value, Tensor)}
    state = {re.sub(r"^(module\.|_orig_mod\.)+", "", key): value for key, value in tensors.items()}
    if not state:
        raise CheckpointError(f"{source} holds no weights" + (f", only {_shorten(found)}" if found else ""))
    return state


def _name_parts(state: State) -> State:
    """Name the backbone and the neck of detectron2, where the first is called the bottom of the second, as ours.

    Likewise the ViT of MONAI's UNETR, beside which there is the head without a name of its own.
    """
    if any(key.startswith("vit.patch_embedding.") for key in state):
        return {f"backbone.{k}" if k.startswith("vit.") else f"head.{k}": value for k, value in state.items()}
    if not any(key.startswith(("bottom_up.", "backbone.bottom_up.")) for key in state):
        return state
    state = {re.sub(r"^(backbone\.)?bottom_up\.", "backbone.", key): value for key, value in state.items()}
    return {re.sub(r"^(backbone\.)?(?=fpn_|top_block\.)", "neck.", key): value for key, value in state.items()}


def _split(state: State, backbone: nn.Module, report: LoadReport) -> dict[str, State]:
    """Sort tensors by part of the model. What has no prefix belongs to the backbone of a classifier."""
    whole = any(key.startswith("backbone.") for key in state)
    # For some models of timm the last norm is in the head; official CCT calls all but the tokenizer the classifier.
    own = backbone.state_dict().keys()
    parts: dict[str, State] = {part: {} for part in _PARTS}
    for key, value in state.items():
        part, _, name = key.partition(".")
        if part in _HEADS and not _complete(backbone, _translate(backbone, {key: value})).keys() & own:
            parts["head"][name] = value
        elif part in _PARTS_OF_HEADS:
            parts["head"][key] = value
        elif not whole:
            parts["backbone"][key] = value
        elif part in parts:
            parts[part][name] = value
        else:
            report.unexpected.append(key)
    return parts


def _translate_parts(
    modules: Mapping[str, nn.Module], states: Mapping[str, State], report: LoadReport
) -> dict[str, State]:
    """Rename the tensors of each part. Where a release numbers its layers, the backbone knows which is the head."""
    translated = _translate(modules["backbone"], states["backbone"])
    backbone = dict(_complete(modules["backbone"], translated))
    renamed = {id(value) for key, value in translated.items() if backbone.get(key) is not value}
    made = [key for key, value in backbone.items() if translated.get(key) is not value and id(value) not in renamed]
    report.completed = [f"backbone.{key}" for key in made]
    own = modules["backbone"].state_dict().keys()
    numbered = [key for key in backbone if key.startswith("head.") and key not in own]
    head = {**states["head"], **{key.removeprefix("head."): backbone.pop(key) for key in numbered}}
    neck = _translate(modules.get("neck"), states["neck"])
    return {"backbone": backbone, "neck": neck, "head": _translate(modules.get("head"), head)}


def _translate(module: nn.Module | None, state: State) -> State:
    return module.translate(state) if isinstance(module, Backbone | Neck | Head) else state


def _complete(backbone: nn.Module, state: State) -> State:
    """Let a backbone of clips complete the weights of the image model that it extends."""
    return backbone.from_images(state) if isinstance(backbone, Backbone) else state


def _fit(part: str, module: nn.Module, state: State, report: LoadReport) -> State:
    """Return the tensors of ``state`` that go into ``module``, and enter all of both into the report."""
    own = module.state_dict()
    fitted = {key: value for key, value in state.items() if key in own and key.endswith(_COUNTER)}
    report.unexpected += [f"{part}.{key}" for key in state if key not in own]
    own = {key: value for key, value in own.items() if not key.endswith(_COUNTER)}
    report.totals[part] = len(own)
    stem = next((key for key, value in own.items() if value.ndim >= 4), None) if part == "backbone" else None
    for key, value in own.items():
        name, found = f"{part}.{key}", state.get(key)
        if found is None:
            report.missing.append(name)
            continue
        if isinstance(module, Backbone) and found.shape != value.shape:
            before, found = tuple(found.shape), module.adapt(key, found)
            if tuple(found.shape) != before:
                report.resized[name] = f"{before} -> {tuple(found.shape)}"
        old, new = tuple(found.shape), tuple(value.shape)
        if old != new and key == stem and (old[0], *old[2:]) == (new[0], *new[2:]):
            found = adapt_channels(found, new[1])
            report.resized[name] = f"{old[1]} -> {new[1]} input channels"
        elif old != new:
            classes = isinstance(module, Head) and new[0] == module.num_classes and old[1:] == new[1:]
            report.skipped[name] = f"{old[0]} -> {new[0]} classes" if classes else f"{old} -> {new}"
            continue
        report.matched.append(name)
        fitted[key] = found
    return fitted


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Return a first convolution ``(out, in, ...)`` for inputs of ``channels``, at the same scale of its outputs."""
    known = weight.shape[1]
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeated = torch.cat([weight] * -(-channels // known), dim=1)[:, :channels]
    return repeated * (known / channels)


def _check_coverage(backbone: nn.Module, state: State, report: LoadReport) -> None:
    extra = _extra(backbone) if isinstance(backbone, Backbone) else ()
    lacking = [
        name
        for name in (*report.missing, *report.skipped)
        if name.startswith("backbone.") and not name.removeprefix("backbone.").startswith(extra)
    ]
    if not lacking:
        return
    kind, total = type(backbone).__name__, report.totals["backbone"]
    variants = [name for name in _variants(type(backbone)) if _covers(state, name)]
    if variants:
        hint = f"is this a checkpoint of {' or '.join(variants)}?"
    elif not any(key in state for key in backbone.state_dict()):
        hint = f"its names are not those of {kind}: {_shorten(state)}."
    else:
        hint = "is this a checkpoint of another variant?"
    raise CheckpointError(
        f"{report.source} lacks {len(lacking)} of the {total} tensors of the backbone {kind}: {_shorten(lacking)}; "
        f"{hint} To start from what it has, call load_weights with allow_partial=True"
    )


def _variants(kind: type) -> list[str]:
    """Return the names of the registered functions that make a backbone of this class."""
    return [
        n for n in BACKBONES.names() if inspect.get_annotations(BACKBONES.get(n), eval_str=True).get("return") is kind
    ]


def _covers(state: State, variant: str) -> bool:
    with torch.device("meta"):
        backbone: Backbone = BACKBONES.build({"type": variant})
    own = {k: v for k, v in backbone.state_dict().items() if not k.endswith(_COUNTER)}
    own = {k: v for k, v in own.items() if not k.startswith(_extra(backbone))}
    return all(key in state and state[key].shape == value.shape for key, value in own.items())


def _extra(backbone: Backbone) -> tuple[str, ...]:
    """Return starts of the names of what the weights may lack: the model is then of more use than theirs."""
    return (*backbone.dense_only, *backbone.clips_only)


def _shorten(names: Iterable[str]) -> str:
    first = list(names)
    return ", ".join(first[:3]) + (f" and {len(first) - 3} more" if len(first) > 3 else "")
