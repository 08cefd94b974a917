"""Parameters and multiply-accumulates (MACs) of a model, part by part, without computing anything.

Only shapes flow through the model. Attention is taken apart into its two products on the way: torch's counter
takes the fused kernel of the CPU for free, mmengine's any fused attention.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode  # unlike the meta device, fine with autocast
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from densevit.features import Backbone

STAGE = re.compile(r"(\d+|_[a-z])$")
SHORT = 8


@dataclass(frozen=True, slots=True)
class Part:
    """What a part of a model costs; the parts of a divided one follow it with a greater ``depth``."""

    name: str
    depth: int
    params: int
    macs: int


def complexity(model: nn.Module, size: Sequence[int], channels: int = 3) -> list[Part]:
    """Return the cost of a model, of its children and of the stages of its backbone, for one input.

    Counted are the products of convolutions, linear layers and attention. The model itself is not touched.

    Args:
        model: Takes ``(1, channels, *size)``.
        size: ``(H, W)``, ``(T, H, W)`` or ``(D, H, W)``.
        channels: Of the input.
    """
    return list(_divide(model, "", "total", 0, _count_macs(model, (1, channels, *size))))


def usual_size(backbone: Backbone) -> tuple[int, ...]:
    """Return the size of input for which to count where none is asked for: 512 x 512 for images.

    For clips it is that of the training, and for volumes too where the backbone names one, else 96 along each axis.
    """
    if len(backbone.divisor) == 2:
        return 512, 512
    return (backbone.num_frames, backbone.img_size, backbone.img_size) if backbone.num_frames else (96, 96, 96)


def _count_macs(model: nn.Module, shape: Sequence[int]) -> dict[str, int]:
    """Return the MACs of each module that has any by its name, "" for the whole."""
    counter, training = FlopCounterMode(display=False), model.training
    model.eval()
    try:
        with FakeTensorMode(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            tensors = [*model.named_parameters(), *model.named_buffers()]
            state = {name: torch.empty(t.shape, dtype=t.dtype) for name, t in tensors}
            with counter:
                functional_call(model, state, (torch.empty(*shape),))
    finally:
        model.train(training)
    root = type(model).__name__
    flops = {name.removeprefix(root).lstrip("."): sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    return {name: count // 2 for name, count in flops.items()}


def _divide(module: nn.Module, path: str, label: str, depth: int, macs: dict[str, int]) -> Iterator[Part]:
    """Yield a module and, if it is the whole or a backbone, its parts and what is in none of them."""
    rest = Part(label, depth, _params([module]), _macs(module, path, macs))
    yield rest
    if depth > 0 and not isinstance(module, Backbone):
        return
    for name, members in _group(module).items():
        paths = [_join(path, member) for member in members]
        if len(members) == 1:
            parts = list(_divide(members[name], paths[0], name, depth + 1, macs))
        else:
            count = sum(_macs(member, at, macs) for member, at in zip(members.values(), paths, strict=True))
            parts = [Part(f"{name} ({', '.join(members)})", depth + 1, _params(members.values()), count)]
        if parts[0].params or parts[0].macs:
            yield from parts
        rest = Part("(own)", depth + 1, rest.params - parts[0].params, rest.macs - parts[0].macs)
    if rest.depth > depth and (rest.params or rest.macs):
        yield rest


def _group(module: nn.Module) -> dict[str, dict[str, nn.Module]]:
    """Return the children by name, those of a backbone that end in the same number or letter together as a stage.

    So official releases name the parts of a stage: ``patch_embed1, block1, norm1`` or ``blocks_a``. A list without
    a number is a list of stages if it is short, else of the blocks of a single one.
    """
    if not isinstance(module, Backbone):
        return {name: {name: child} for name, child in module.named_children()}
    groups: dict[str, dict[str, nn.Module]] = {}
    for name, child in module.named_children():
        if STAGE.search(name) is None and isinstance(child, nn.ModuleList) and len(child) <= SHORT:
            children = {f"{name}.{i}": item for i, item in enumerate(child)}
        else:
            children = {name: child}
        for key, part in children.items():
            stage = STAGE.search(key)
            groups.setdefault(f"stage {stage[0].strip('_')}" if stage else key, {})[key] = part
    return {label if len(members) > 1 else next(iter(members)): members for label, members in groups.items()}


def _params(modules: Iterable[nn.Module]) -> int:
    return sum(p.numel() for p in {p for module in modules for p in module.parameters()})


def _macs(module: nn.Module, path: str, macs: dict[str, int]) -> int:
    """Return the MACs of a module; one that is not called itself, such as a list, has those of its children."""
    if path in macs:
        return macs[path]
    return sum(_macs(child, _join(path, name), macs) for name, child in module.named_children())


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
