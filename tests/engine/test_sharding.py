"""A model that is split over processes trains, is saved and goes on as one that is not."""

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from mmengine.config import Config
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from densevit.engine.config import check_config
from densevit.engine.ema import WarmupEMA
from densevit.engine.runner import Runner
from densevit.engine.sharding import blocks_of, gather, mesh_of, reshard, shard, tensors_of
from densevit.errors import CheckpointError, ConfigError
from densevit.registry import MODELS
from densevit.weights import load_weights, read_file

STEPS = 4


@pytest.fixture
def _group(tmp_path: Path) -> Iterator[None]:
    """Join a group of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def build(cfg: Config, split: bool = True, **options: Any) -> Any:
    torch.manual_seed(0)
    model = MODELS.build(dict(cfg.model))
    if split:
        shard(model, torch.device("cpu"), **options)
    return model


def gradients(model: nn.Module) -> dict[str, Tensor]:
    torch.manual_seed(1)
    model(torch.ones(2, 3, 64, 64)).square().sum().backward()
    return {
        name: p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad for name, p in model.named_parameters()
    }


@pytest.mark.usefixtures("_group")
def test_blocks_are_split_one_by_one_and_names_stay(config: Config) -> None:
    whole, model = build(config, split=False), build(config)
    blocks = [name for name, module in model.named_modules() if isinstance(module, FSDPModule)]
    assert blocks == ["", *(f"backbone.block{i}.0" for i in (1, 2, 3, 4))]
    assert list(model.state_dict()) == list(whole.state_dict())
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in whole.named_parameters()]
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    assert mesh_of(model) is not None
    assert mesh_of(whole) is None


@pytest.mark.usefixtures("_group")
def test_gradients_are_those_of_the_whole_model_also_when_activations_are_computed_again(config: Config) -> None:
    expected = gradients(build(config, split=False))
    for checkpointing in (False, True):
        config.model.activation_checkpointing = checkpointing
        found = gradients(build(config))
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.usefixtures("_group")
def test_blocks_are_gathered_in_bf16_where_asked_for_and_the_rest_is_not(config: Config) -> None:
    config.model.precision = "bf16"
    expected, model = gradients(build(config, split=False)), build(config, low=True)
    seen: dict[str, torch.dtype] = {}
    parts = {"block": model.backbone.block1[0].attn, "head": model.head}
    for name, part in parts.items():
        part.register_forward_pre_hook(lambda m, _, name=name: seen.update({name: next(m.parameters()).dtype}))
    found = gradients(model)
    assert seen == {"block": torch.bfloat16, "head": torch.float32}
    assert all(p.dtype == torch.float32 and p.grad.dtype == torch.float32 for p in model.parameters())
    name = "backbone.block1.0.mlp.fc1.weight"
    torch.testing.assert_close(found[name], expected[name], rtol=0.1, atol=0.02 * float(expected[name].abs().max()))


@pytest.mark.usefixtures("_group")
def test_whole_weights_are_there_until_they_are_freed_and_can_be_loaded(config: Config) -> None:
    whole, model = build(config, split=False), build(config)
    gather(model)
    assert not any(isinstance(parameter, DTensor) for parameter in model.parameters())
    model.eval()
    with torch.no_grad():
        assert torch.equal(model.network(torch.ones(1, 3, 64, 64)), whole.eval().network(torch.ones(1, 3, 64, 64)))
    assert not any(isinstance(parameter, DTensor) for parameter in model.parameters())
    reshard(model)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    changed = {k: torch.full_like(v, 0.5) if v.is_floating_point() else v for k, v in whole.state_dict().items()}
    load_weights(model, changed, verbose=False)
    assert all((p.full_tensor() == 0.5).all() for p in model.parameters())
    gradients(model.train())  # trains after it was evaluated


@pytest.mark.usefixtures("_group")
def test_averages_of_a_split_model_are_those_of_the_whole_one(config: Config) -> None:
    models = build(config, split=False), build(config)
    averages = WarmupEMA(models[0], 0.3), WarmupEMA(tensors_of(models[1]), 0.3)
    for step in range(3):
        for model, average in zip(models, averages, strict=True):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(step)
            average.update_parameters(model)
    whole, split = (average.state_dict() for average in averages)
    assert list(whole) == list(split)
    parts = {k: v.full_tensor() if isinstance(v, DTensor) else v for k, v in split.items()}
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


class Blockless(nn.Module):
    def layer_groups(self) -> list[tuple[str, ...]]:
        raise ConfigError("no groups")


def test_a_backbone_that_does_not_name_its_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r'Blockless does not say.*layer_groups.*type="ddp"'):
        blocks_of(Blockless())


@pytest.mark.parametrize(
    ("parallel", "message"),
    [
        ({"type": "fdsp"}, "parallel.type is one of ddp, fsdp, not 'fdsp'"),
        ({"type": "fsdp", "reshard": True}, "parallel of type fsdp takes no 'reshard'"),
        ({"type": "ddp", "reshard_after_forward": True}, "parallel of type ddp takes no"),
    ],
)
def test_misspelt_options_are_refused(config: Config, parallel: dict[str, Any], message: str) -> None:
    config.parallel = parallel
    with pytest.raises(ConfigError, match=message):
        check_config(config)


def test_an_optimizer_that_needs_whole_gradients_is_refused(config: Config) -> None:
    config.parallel = {"type": "fsdp"}
    check_config(config)
    config.optim_wrapper.optimizer = {"type": "ViTAdafactor", "lr": 1e-3}
    with pytest.raises(ConfigError, match=r"ViTAdafactor needs whole gradients.*AdamW"):
        check_config(config)


def test_one_process_says_that_there_is_nothing_to_split(config: Config, tmp_path: Path) -> None:
    config.parallel, config.train_cfg.max_iters = {"type": "fsdp"}, 1
    assert mesh_of(Runner.from_cfg(config).train()) is None
    assert "there is one: start with torchrun" in next((tmp_path / "run").glob("*/*.log")).read_text()


def train(root: Path, name: str, kind: str, start: str | None = None, **options: Any) -> None:
    """Train in each of several processes, from the beginning or from where another run was."""
    cfg = Config.fromfile(root / "tiny.py")
    cfg.update(
        {"launcher": "pytorch", "parallel": {"type": kind}, "work_dir": str(root / name), "experiment_name": name}
    )
    cfg.update({"resume": start is not None, "load_from": start and str(root / start)})
    cfg.merge_from_dict(options)
    Runner.from_cfg(cfg).train()


PLAIN = {"model.precision": "bf16", "model.activation_checkpointing": True, "custom_hooks": []}
PLAIN |= {"optim_wrapper.accumulative_counts": 2, "optim_wrapper.clip_grad": {"max_norm": 0.1}, "val_cfg.loss": False}


def _train_all(root: Path, rank: int, world_size: int) -> str:
    torch.set_num_threads(1)
    train(root, "split", "fsdp")
    train(root, "copies", "ddp")
    train(root, "resumed", "fsdp", "split/iter_2")
    train(root, "from_file", "fsdp", "copies/iter_2.pth")
    train(root, "from_folder", "ddp", "split/iter_2")
    train(root, "split_bf16", "fsdp", **PLAIN)
    train(root, "copies_bf16", "ddp", **PLAIN)
    try:
        train(root, "lost", "fsdp", "split/iter_3")
    except CheckpointError as error:
        return str(error)
    return ""


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Return all that a checkpoint holds, but for its description of the run, by its place."""
    if not isinstance(value, dict | list | tuple):
        return {name: value}
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return {k: v for key, part in parts if key != "meta" for k, v in flat(part, f"{name}/{key}").items()}


def assert_equal(one: Path, other: Path, exactly: bool = True, tolerance: float = 1e-4) -> None:
    a, b = flat(read_file(one)), flat(read_file(other))
    assert a.keys() == b.keys()
    assert any(key.startswith("/optimizer") for key in a)
    for key, value in a.items():
        if not isinstance(value, Tensor) or exactly:
            assert torch.equal(value, b[key]) if isinstance(value, Tensor) else value == b[key], key
        elif key.startswith(("/state_dict", "/ema_state_dict")):
            torch.testing.assert_close(value, b[key], rtol=tolerance, atol=tolerance, msg=key)


def scores(work_dir: Path) -> dict[str, float]:
    lines = [json.loads(line) for line in next(work_dir.glob("*/vis_data/scalars.json")).read_text().splitlines()]
    return next({k: v for k, v in line.items() if k in ("mIoU", "aAcc", "loss")} for line in lines if "mIoU" in line)


@pytest.mark.slow
def test_two_processes_with_half_of_the_model_each_train_as_two_with_a_copy(
    config: Config, tmp_path: Path, in_processes: Callable[..., list[Any]]
) -> None:
    config.pop("work_dir")
    config.train_cfg = {"by_epoch": False, "max_iters": STEPS, "val_interval": STEPS}
    config.train_dataloader.batch_size = 2
    config.custom_hooks = [{"type": "EMAHook", "ema_type": "WarmupEMA", "momentum": 0.2}]
    config.optim_wrapper.update({"constructor": "LayerDecayConstructor", "paramwise_cfg": {"layer_decay": 0.8}})
    config.dump(tmp_path / "tiny.py")
    errors = in_processes(partial(_train_all, tmp_path), 2)
    assert all("iter_3 does not exist" in error for error in errors)

    last = f"iter_{STEPS}"
    assert_equal(tmp_path / "split" / last, tmp_path / "resumed" / last)
    for name in ("copies", "from_folder"):
        assert_equal(tmp_path / "split" / last, tmp_path / name / f"{last}.pth", exactly=False)
    assert_equal(tmp_path / "split" / last, tmp_path / "from_file" / last, exactly=False)
    assert scores(tmp_path / "split") == pytest.approx(scores(tmp_path / "copies"), abs=1e-3)
    assert_equal(tmp_path / "split_bf16" / last, tmp_path / "copies_bf16" / f"{last}.pth", False, 5e-3)
    for name in (f"split/{last}", "split/best_mIoU", "split_bf16/best_mIoU"):  # the last without an average to exchange
        assert {p.name for p in (tmp_path / name).iterdir()} >= {"__0_0.distcp", "__1_0.distcp"}

    # In one process, a folder has the scores of a file, and training goes on from it.
    found = []
    for name in ("split/best_mIoU", "copies/best_mIoU.pth"):
        config.load_from, config.work_dir = str(tmp_path / name), str(tmp_path / "test" / name)
        found.append(Runner.from_cfg(config).test())
    assert found[0] == pytest.approx(found[1], abs=1e-3)
    shutil.copytree(tmp_path / "split", tmp_path / "alone")
    for name in (last, "best_mIoU"):
        shutil.rmtree(tmp_path / "alone" / name)
    config.update({"load_from": None, "resume": True, "work_dir": str(tmp_path / "alone")})
    assert Runner.from_cfg(config).train() is not None
    assert (
        flat(read_file(tmp_path / "alone" / f"{last}.pth")).keys() == flat(read_file(tmp_path / "split" / last)).keys()
    )
