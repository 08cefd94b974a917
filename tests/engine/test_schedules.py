"""Learning rates over the steps of a run; `tests/golden/engine/scaling_vit.json` has the official shares."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from torch import nn

from densevit.engine.config import load_config
from densevit.engine.runner import Runner
from densevit.engine.schedules import RsqrtLR, reach
from densevit.errors import ConfigError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "engine" / "scaling_vit.json").read_text())["schedules"]


def optimizer(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates or (1.0,)])


def rates(steps: int, *schedulers: dict[str, Any], groups: tuple[float, ...] = (1.0,)) -> list[list[float]]:
    """Return the learning rates of all groups in each iteration, with schedulers built as a runner does."""
    updated = optimizer(*groups)
    with DefaultScope.overwrite_default_scope("densevit"):
        built = [PARAM_SCHEDULERS.build({**s, "optimizer": updated, "epoch_length": 5}) for s in schedulers]
    found = []
    for _ in range(steps):
        found.append([group["lr"] for group in updated.param_groups])
        updated.step()
        for scheduler in built:
            scheduler.step()
    return found


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cooldown", {"timescale": 10, "warmup": 10, "cooldown": 20, "end": 100}),
        ("vit_g", {"timescale": 10_000, "warmup": 10_000, "cooldown": 50_000, "end": 1_000_000}),
        ("shift", {"timescale": 10, "warmup": 10, "shift": 5, "end": 100}),
    ],
)
def test_the_reciprocal_square_root_is_the_official_one(name: str, options: dict[str, int]) -> None:
    schedule = RsqrtLR(optimizer(), by_epoch=False, **options)
    for step, share in GOLDEN[name].items():
        assert schedule.factor(int(step)) == pytest.approx(share, rel=1e-6, abs=1e-12)


COOLED = {"type": "RsqrtLR", "timescale": 10, "warmup": 10, "cooldown": 20, "end": 100, "by_epoch": False}


def test_each_group_learns_at_its_share_in_each_step() -> None:
    found = rates(100, COOLED, groups=(1.0, 0.25))
    for step, share in list(GOLDEN["cooldown"].items())[:-1]:
        assert found[int(step)] == pytest.approx([share, 0.25 * share], rel=1e-6)


def test_stated_in_epochs_it_is_the_same_in_each_iteration() -> None:
    epochs = {"type": "RsqrtLR", "timescale": 2, "warmup": 2, "cooldown": 4, "end": 20}
    assert rates(100, {**epochs, "convert_to_iter_based": True}) == rates(100, COOLED)
    shifted = {**epochs, "shift": 1, "begin": 1, "convert_to_iter_based": True}
    assert rates(100, shifted) == rates(100, {**COOLED, "shift": 5, "begin": 5})


def test_it_counts_from_its_begin_and_holds_its_last_rate_after_its_end() -> None:
    found = [rate for (rate,) in rates(40, {**COOLED, "begin": 7, "end": 30, "cooldown": 3})]
    expected = [rate for (rate,) in rates(23, {**COOLED, "end": 23, "cooldown": 3})]
    assert found == [1.0] * 7 + expected + [expected[-1]] * 10
    assert expected[-1] == pytest.approx((1 + 12 / 10) ** -0.5 / 3)


def test_its_state_goes_on_at_the_same_step() -> None:
    first, second = optimizer(1.0), optimizer(1.0)
    saved, resumed = (RsqrtLR(o, timescale=10, warmup=10, end=100) for o in (first, second))
    for _ in range(12):
        first.step()
        saved.step()
    resumed.load_state_dict(json.loads(json.dumps(saved.state_dict())))  # plain values
    first.step()
    second.step()
    saved.step()
    resumed.step()
    assert first.param_groups[0]["lr"] == second.param_groups[0]["lr"] == pytest.approx((1 + 3 / 10) ** -0.5)


@pytest.mark.parametrize("wrong", [{"timescale": 0}, {"timescale": 1, "warmup": -1}, {"timescale": 2, "shift": -2}])
def test_impossible_lengths_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="RsqrtLR: timescale must be positive"):
        RsqrtLR(optimizer(), **wrong)


WARM_UP = {"type": "LinearLR", "start_factor": 1e-9, "end": 11, "by_epoch": False}  # at the full rate in step 10


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("cosine", {"type": "CosineAnnealingLR", "begin": 10, "T_max": 90, "end": 101}),
        ("linear", {"type": "PolyLR", "power": 1.0, "eta_min": 1e-5, "begin": 10, "end": 101}),
    ],
)
def test_mmengine_s_schedulers_give_the_official_cosine_and_linear_ones(name: str, scheduler: dict[str, Any]) -> None:
    found = rates(101, WARM_UP, {**scheduler, "by_epoch": False})
    for step, share in GOLDEN[name].items():
        assert found[int(step)][0] == pytest.approx(share, rel=1e-5, abs=1e-8)


class Recorder(Hook):
    def __init__(self) -> None:
        self.rates: list[float] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        self.rates.append(runner.optim_wrapper.param_groups[0]["lr"])


def recorded(cfg: Config, work_dir: Path, resume: bool = False) -> list[float]:
    """Train; return the learning rate of each step."""
    cfg = cfg.copy()
    cfg.work_dir, cfg.resume, cfg.experiment_name = str(work_dir), resume, f"{work_dir.name}_{resume}"
    recorder = Recorder()
    runner = Runner.from_cfg(cfg)
    runner.register_hook(recorder)
    runner.train()
    return recorder.rates


def test_a_resumed_run_that_is_made_longer_continues_on_the_longer_schedule(config: Config, tmp_path: Path) -> None:
    config.param_scheduler = [{"type": "RsqrtLR", "timescale": 4, "warmup": 2, "cooldown": 2, "by_epoch": False}]
    config.train_cfg = {"by_epoch": False, "max_iters": 4, "val_interval": 100}
    short = recorded(config, tmp_path / "run")
    config.train_cfg.max_iters = 6
    straight = recorded(config, tmp_path / "straight")
    assert short[:3] == straight[:3]
    assert short[3] < straight[3]
    assert recorded(config, tmp_path / "run", resume=True) == straight[4:]


@pytest.mark.parametrize(
    ("schedules", "train_cfg", "said"),
    [
        ([dict(type="PolyLR", by_epoch=False, end=5000)], dict(max_iters=150), "step 5000.*step 150.*end=150"),
        (dict(type="CosineAnnealingLR", by_epoch=False, T_max=90), dict(by_epoch=False, max_iters=80), "step 90"),
        ([dict(type="PolyLR", end=30)], dict(max_epochs=20), "epoch 30.*epoch 20"),
        (
            [dict(type="LinearLR", by_epoch=False, end=150), dict(type="ConstantLR", by_epoch=False)],
            dict(max_iters=150),
            "^$",
        ),
        ([dict(type="PolyLR", end=30)], dict(max_iters=20), "^$"),
        (None, dict(max_epochs=2), "^$"),
    ],
)
def test_a_schedule_that_reaches_beyond_the_run_is_told(schedules: Any, train_cfg: dict[str, Any], said: str) -> None:
    assert re.search(said, reach(schedules, train_cfg))


def test_no_recipe_ends_before_its_schedules() -> None:
    recipes = [path for path in (Path(__file__).parents[2] / "configs").rglob("*.py") if path.parent.name != "_base_"]
    read = {path.name: load_config(path) for path in recipes}
    assert {name: told for name, cfg in read.items() if (told := reach(cfg.param_scheduler, cfg.train_cfg))} == {}


def test_a_run_that_is_shorter_than_its_schedule_says_so(config: Config, tmp_path: Path) -> None:
    config.param_scheduler[0].end = 500
    Runner.from_cfg(config).train()
    assert "param_scheduler reaches to step 500" in "".join(p.read_text() for p in tmp_path.rglob("*.log"))
