"""The optimizer of Scaling Vision Transformers: its official numbers, its memory, its state.

`tests/golden/engine/scaling_vit.json` has values of the official optimizer for parameters and gradients that a test can
draw again: of each tensor, every eighth of 64 values that lie at equal distances.
"""

import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from densevit.engine.adafactor import Adafactor
from densevit.engine.config import check_config
from densevit.engine.layer_decay import LayerDecayConstructor
from densevit.engine.runner import Runner
from densevit.errors import ConfigError
from densevit.registry import BACKBONES, OPTIMIZERS, PARAM_SCHEDULERS
from densevit.weights import read_file

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "engine" / "scaling_vit.json").read_text())
SHAPES = {"big": (64, 48), "thin": (64, 16), "vec": (40,), "conv4": (3, 3, 40, 64), "q3": (64, 4, 32)}


def drawn(name: str, shape: tuple[int, ...], scale: float) -> Tensor:
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape) * scale
    return torch.from_numpy(values).float()


def gradient(name: str, shape: tuple[int, ...], step: int) -> Tensor:
    return drawn(f"{name}grad{step}", shape, 0.5 + 0.25 * step)


def error(found: Tensor, samples: list[float]) -> float:
    """Return the greatest difference from recorded values, as a share of the largest of them."""
    values = found.detach().double().flatten()
    kept = values[np.linspace(0, values.numel() - 1, 64).astype(int)[::8]]
    expected = torch.tensor(samples, dtype=torch.float64)
    return ((kept - expected).abs().max() / expected.abs().max().clamp(min=1e-12)).item()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_updates_are_those_of_the_official_optimizer(dtype: str) -> None:
    golden = GOLDEN["updates"][dtype]
    parameters = {name: nn.Parameter(drawn(name, shape, 0.1)) for name, shape in SHAPES.items()}
    optimizer = Adafactor(parameters.values(), lr=1.0, momentum_dtype=dtype)
    for step in range(6):
        before = {name: p.detach().clone() for name, p in parameters.items()}
        for name, p in parameters.items():
            p.grad = -gradient(name, SHAPES[name], step)  # the recorded updates are not negated
        optimizer.step()
        for name, samples in golden.get(str(step), {}).items():
            assert error(parameters[name] - before[name], samples) < 1e-5, (step, name)
    for name, samples in golden["parameters"].items():
        assert error(parameters[name], samples) < 1e-5, name


class Classifier(nn.Module):
    """One layer and a head, of the sizes of the recording."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(48, 64)
        self.backbone.no_weight_decay = ()
        self.head = nn.Linear(48, 10)


def test_clipping_decay_of_the_head_and_schedule_give_the_official_recipe() -> None:
    model = Classifier().double()  # so that differences of weights are exact
    ours = {"enc/Dense_0": model.backbone, "head": model.head}
    parameters = {f"{k}/kernel": layer.weight.T for k, layer in ours.items()}  # official kernels are (in, out)
    parameters |= {f"{k}/bias": layer.bias for k, layer in ours.items()}
    for name, p in parameters.items():
        p.data.copy_(drawn(name, tuple(p.shape), 0.1))
    optimizer = {"type": "ViTAdafactor", "lr": 8e-4, "weight_decay": 0.03, "momentum_dtype": "float32"}
    cfg = {"optimizer": optimizer, "clip_grad": {"max_norm": 1.0}}
    wrapper = LayerDecayConstructor(cfg, {"head_decay": 100})(model)
    scheduler = {"type": "RsqrtLR", "timescale": 10, "warmup": 2, "cooldown": 2, "end": 10, "by_epoch": False}
    schedule = PARAM_SCHEDULERS.build(scheduler, {"optimizer": wrapper})
    for step, golden in enumerate(GOLDEN["recipe"]):
        before = {name: p.detach().clone() for name, p in parameters.items()}
        # a loss whose gradient is the recorded one
        loss = sum((p * gradient(name, tuple(p.shape), step)).sum() for name, p in parameters.items())
        wrapper.update_params(loss)
        schedule.step()
        for name, samples in golden.items():
            assert error(parameters[name] - before[name], samples) < 1e-5, (step, name)


def stepped(model: nn.Module, optimizer: dict[str, Any]) -> torch.optim.Optimizer:
    """Return an optimizer after a step, which is when it makes its state."""
    built = OPTIMIZERS.build({**optimizer, "lr": 1e-3, "params": model.parameters()})
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    built.step()
    return built


def test_its_state_takes_a_third_of_the_memory_of_adamw_s() -> None:
    def memory(kind: str) -> int:
        state = stepped(BACKBONES.build({"type": "xcit_nano_12_p16"}), {"type": kind}).state
        return sum(v.nbytes for s in state.values() for v in s.values() if isinstance(v, Tensor))

    ours, adam = memory("ViTAdafactor"), memory("AdamW")
    print(f"{ours:,} of {adam:,} bytes: {ours / adam:.3f}")
    assert ours < adam / 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_state_goes_on_with_the_same_bits(dtype: torch.dtype) -> None:
    layer = nn.Linear(40, 33).to(dtype)
    optimizer = stepped(layer, {"type": "ViTAdafactor", "weight_decay": 0.1})
    optimizer.step()
    file = io.BytesIO()
    torch.save([layer.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    other = nn.Linear(40, 33).to(dtype)
    other.load_state_dict(weights)
    resumed = Adafactor(other.parameters(), lr=0.5)
    resumed.load_state_dict(state)
    for p, q in zip(layer.parameters(), other.parameters(), strict=True):
        one, two = optimizer.state[p], resumed.state[q]
        assert one["momentum"].dtype == two["momentum"].dtype == torch.bfloat16
        assert all(v.dtype == torch.float32 for k, v in two.items() if k not in ("step", "momentum"))
        assert len(two) == (4 if p.ndim == 2 else 3)
        p.grad = q.grad = torch.randn_like(p)
    for _ in range(2):
        optimizer.step()
        resumed.step()
    for p, q in zip(layer.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_the_second_moment_never_becomes_too_slow() -> None:
    p = nn.Parameter(torch.zeros(2))
    optimizer = Adafactor([p], lr=0.1)
    p.grad = torch.ones(2)
    optimizer.step()
    optimizer.state[p]["step"] = 10**6
    p.grad = torch.full((2,), 3.0)
    optimizer.step()
    torch.testing.assert_close(optimizer.state[p]["second_moment"], torch.full((2,), 0.999 + 0.001 * 9))


def test_a_closure_is_evaluated_and_a_parameter_without_gradient_stays() -> None:
    used, unused = (nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = Adafactor([used, unused], lr=0.1, weight_decay=0.5)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = used.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 3
    assert torch.equal(unused, torch.ones(3))
    # the average starts at 0: a tenth of a step; the decay is not averaged
    torch.testing.assert_close(used.detach(), torch.full((3,), 1 - 0.1 * 0.5 - 0.1 * 0.1))


def test_it_learns_a_small_problem() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 48), nn.GELU(), nn.Linear(48, 40))
    x, y = torch.randn(64, 8), torch.randint(0, 40, (64,))
    optimizer = Adafactor(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_torch_s_adafactor_keeps_its_name() -> None:
    assert OPTIMIZERS.get("ViTAdafactor") is Adafactor
    assert OPTIMIZERS.get("TorchAdafactor") is torch.optim.Adafactor


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum_dtype": "float16"}, "momentum_dtype must be"),
        ({"momentum": 1.0}, r"momentum in \[0, 1\)"),
        ({"weight_decay": -0.1}, "must not be negative"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Adafactor([nn.Parameter(torch.zeros(1))], lr=0.1, **options)


@pytest.fixture
def recipe(config: Config) -> Config:
    """Return 5 steps of training as in the paper."""
    config.train_cfg = {"by_epoch": False, "max_iters": 5, "val_interval": 100}
    config.optim_wrapper = {
        "type": "OptimWrapper",
        "constructor": "LayerDecayConstructor",
        "optimizer": {"type": "ViTAdafactor", "lr": 1e-3, "weight_decay": 0.03},
        "paramwise_cfg": {"head_decay": 100},
        "clip_grad": {"max_norm": 1.0},
    }
    config.param_scheduler = [{"type": "RsqrtLR", "timescale": 4, "warmup": 2, "cooldown": 2, "by_epoch": False}]
    config.default_hooks.checkpoint = {"type": "CheckpointHook", "interval": 3}
    return config


def train(cfg: Config, work_dir: Path, resume: bool = False) -> dict[str, Tensor]:
    cfg = cfg.copy()
    cfg.work_dir, cfg.resume, cfg.experiment_name = str(work_dir), resume, f"{work_dir.name}_{resume}"
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner.model.state_dict()


def test_a_run_of_the_whole_recipe_is_resumed_exactly(recipe: Config, tmp_path: Path) -> None:
    check_config(recipe)
    straight = train(recipe, tmp_path / "straight")
    train(recipe, tmp_path / "other")
    (tmp_path / "other" / "iter_5.pth").unlink()
    resumed = train(recipe, tmp_path / "other", resume=True)
    for key, value in straight.items():
        assert torch.equal(value, resumed[key]), key
    state = read_file(tmp_path / "other" / "iter_5.pth")["optimizer"]["state"]
    assert {s["momentum"].dtype for s in state.values()} == {torch.bfloat16}


@pytest.mark.parametrize("constructor", ["LayerDecayConstructor", "DefaultOptimWrapperConstructor"])
def test_mmengine_builds_it_from_a_config(constructor: str) -> None:
    cfg = {"constructor": constructor, "optimizer": {"type": "ViTAdafactor", "lr": 0.1, "weight_decay": 0.03}}
    with DefaultScope.overwrite_default_scope("densevit"):
        assert type(build_optim_wrapper(Classifier(), cfg).optimizer) is Adafactor
