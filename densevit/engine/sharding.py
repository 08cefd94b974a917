"""Training whose weights, gradients and optimizer state are split over the processes: FSDP2 (torch's ``fully_shard``).

mmengine's strategy of that name does not run on today's torch. Here the model is split in place, so that names of
parameters, and with them state dicts and groups of the optimizer, are those of the whole model.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed
from mmengine.hooks import Hook
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from densevit.errors import ConfigError
from densevit.registry import HOOKS

LOW = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)


def shard(model: Any, device: torch.device, reshard_after_forward: bool = True, low: bool = False) -> int:
    """Split a model on its device over all processes, in place; return how many blocks are split one by one.

    Each block of the backbone is gathered when it runs and freed after. What is left, stem, norms, neck and head, is
    gathered once a step: heads read their weights in the loss too, after ``forward``. What is split, and what the
    optimizer sees, is fp32, and gradients are summed in fp32.

    Args:
        model: Has a ``backbone``; its initial weights become those of the first process.
        device: Where the model is.
        reshard_after_forward: Free blocks after the forward pass and gather them again in the backward pass. False
            needs more memory and a third less communication.
        low: Gather blocks in bf16: half the communication, and where autocast makes a copy of each weight in bf16 and
            keeps it until the backward pass, there is none to make. Blocks with batch norm, which wants its weights in
            fp32, stay in that.

    Raises:
        ConfigError: The backbone does not say what its blocks are.
    """
    for value in model.state_dict().values():
        torch.distributed.broadcast(value, 0)
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    blocks = blocks_of(model.backbone)
    for block in reversed(blocks):  # inner ones first, where stages of timm contain some
        policy = LOW if low and not _has_batch_norm(block) else MixedPrecisionPolicy()
        fully_shard(block, mesh=mesh, reshard_after_forward=reshard_after_forward, mp_policy=policy)
    fully_shard(model, mesh=mesh)
    for module in model.modules():
        module.register_load_state_dict_pre_hook(_split_whole_tensors)
    model.reshards_after_forward = reshard_after_forward
    return len(blocks)


def blocks_of(backbone: Any) -> list[nn.Module]:
    """Return what runs one after the other: modules whose names in ``layer_groups`` end with a number.

    Raises:
        ConfigError: The backbone has no ``layer_groups``.
    """
    try:
        groups = backbone.layer_groups()
    except ConfigError:
        raise ConfigError(
            f"parallel: fsdp splits backbones block by block, and {type(backbone).__name__} does not say what its "
            'blocks are: add layer_groups to it, or train with parallel=dict(type="ddp")'
        ) from None
    # timm's groups are whole names: what they begin with alike is the block.
    starts = [start for group in groups for start in (*group, os.path.commonprefix(group))]  # noqa: RUF071
    names = {start.rstrip(".") for start in starts if start.endswith(".") and start.split(".")[-2].isdigit()}
    modules = {name: module for name, module in backbone.named_modules() if name in names}
    return [module for module in modules.values() if any(True for _ in module.parameters())]


def mesh_of(model: nn.Module) -> DeviceMesh | None:
    """Return the processes over which a model is split; None if it is whole."""
    return next((p.device_mesh for p in model.parameters() if isinstance(p, DTensor)), None)


def like(own: Tensor | None, value: Tensor) -> Tensor:
    """Return a whole tensor split as ``own`` is; tensors of other shapes, and those that are split, as they are."""
    if not isinstance(own, DTensor) or isinstance(value, DTensor) or value.shape != own.shape:
        return value
    whole = value.to(own.device_mesh.device_type)
    return distribute_tensor(whole, own.device_mesh, own.placements, src_data_rank=None)


def split_state(state: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the state dict of an optimizer whose whole tensors are split as the parameters that they belong to.

    Whether it fits the optimizer, with these groups, is for ``load_state_dict`` to say.
    """
    parameters = [parameter for group in groups for parameter in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    split = {}
    for number, parameter in zip(numbers, parameters, strict=False):
        if number in state["state"]:
            values = state["state"][number]
            split[number] = {k: like(parameter, v) if isinstance(v, Tensor) else v for k, v in values.items()}
    return {**state, "state": split}


def tensors_of(module: nn.Module) -> nn.Module:
    """Return a tree of modules with copies of all tensors of a model, by the same names, that computes nothing.

    FSDP's modules cannot be copied, and an average of their weights needs no more.
    """
    holder = nn.Module()
    for name, parameter in module._parameters.items():
        copy = None if parameter is None else nn.Parameter(parameter.detach().clone(), requires_grad=False)
        holder.register_parameter(name, copy)
    for name, buffer in module._buffers.items():
        lasting = name not in module._non_persistent_buffers_set
        holder.register_buffer(name, None if buffer is None else buffer.clone(), persistent=lasting)
    for name, child in module.named_children():
        holder.add_module(name, tensors_of(child))
    holder.register_load_state_dict_pre_hook(_split_whole_tensors)
    return holder


def gather(model: nn.Module) -> None:
    """Gather all weights in every process until `reshard`; all processes call it.

    Evaluation needs that: processes have other numbers of batches, sizes and windows, so that they cannot gather
    blocks in step.
    """
    if not isinstance(model, FSDPModule):
        return
    model._get_fsdp_state()._lazy_init()  # else the first block to run would take itself for the root
    model.set_reshard_after_forward(False)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.unshard()


def reshard(model: nn.Module) -> None:
    """Free what `gather` gathered; without communication."""
    if not isinstance(model, FSDPModule):
        return
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(module is not model and bool(model.reshards_after_forward), recurse=False)
            module.reshard()


@HOOKS.register_module()
class ShardingHook(Hook):
    """What a run does for a split model; nothing if it is whole.

    Evaluation has the whole weights in every process. Gradients of accumulated steps are added up in each process, and
    summed over the processes with those of the last step.
    """

    priority = "VERY_LOW"  # gathers after averaged weights were put in place

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        # Not by mmengine's no_sync: the backward pass is outside of that.
        if isinstance(runner.model, FSDPModule) and runner.optim_wrapper._accumulative_counts > 1:
            runner.model.set_requires_gradient_sync(runner.optim_wrapper.should_sync())

    def before_val_epoch(self, runner: Any) -> None:
        gather(runner.model)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        reshard(runner.model)

    def after_stopped_val(self, runner: Any) -> None:
        """Do as after a validation that ended by itself: the run is saved next."""
        reshard(runner.model)

    def before_test_epoch(self, runner: Any) -> None:
        gather(runner.model)

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        reshard(runner.model)


def _has_batch_norm(block: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in block.modules())


def _split_whole_tensors(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Let ``load_state_dict`` take whole tensors, equal in all processes, where a module has parts of them."""
    for name, own in module._parameters.items():
        if prefix + name in state:
            state[prefix + name] = like(own, state[prefix + name])
