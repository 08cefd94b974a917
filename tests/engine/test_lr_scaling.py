"""Learning rates follow the batch size, are said, and are scaled once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook

from densevit.engine import lr_scaling
from densevit.engine.config import load_config
from densevit.engine.position import Batch
from densevit.engine.runner import Runner
from densevit.errors import ConfigError

ROOT = Path(__file__).parents[2]
RECIPES = sorted(p for p in (ROOT / "configs").rglob("*.py") if "_base_" not in p.parts)


class Recorder(Hook):
    """Takes down the rates of all groups of parameters before each step."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.rates.append([group["lr"] for group in runner.optim_wrapper.param_groups])


def rates(config: Config, work_dir: Path, **changes: Any) -> list[list[float]]:
    """Return the rates of a run."""
    cfg = config.copy()
    cfg.update({"work_dir": str(work_dir), "experiment_name": f"{work_dir.name}_{len(changes)}", **changes})
    runner, recorder = Runner.from_cfg(cfg), Recorder()
    runner.register_hook(recorder)
    runner.train()
    return recorder.rates


def scaled(values: list[list[float]], by: float) -> list[Any]:
    return [pytest.approx([by * value for value in group]) for group in values]


@pytest.fixture
def recipe(config: Config) -> Config:
    """Return a run without validation, of groups of several rates, down to a rate that is stated."""
    config.optim_wrapper.paramwise_cfg = {"custom_keys": {"head": {"lr_mult": 10}}}
    config.param_scheduler[0].eta_min = 1e-4
    config.train_cfg.val_interval = 100
    config.default_hooks.checkpoint = {"type": "CheckpointHook", "interval": 2, "max_keep_ckpts": 9}
    return config


def log_of(work_dir: Path) -> str:
    return "".join(path.read_text() for path in sorted(work_dir.glob("*/*.log")))


def test_a_smaller_batch_than_the_recipe_s_scales_every_rate_and_says_so(recipe: Config, tmp_path: Path) -> None:
    as_stated = rates(recipe, tmp_path / "stated")
    found = rates(recipe, tmp_path / "scaled", auto_scale_lr={"base_batch_size": 16})
    assert found == scaled(as_stated, by=0.25)
    said = "= 4; the recipe is for 16: learning rate scaled by 0.25: 0.001 -> 0.00025; --no-auto-scale-lr keeps it"
    assert said in log_of(tmp_path / "scaled")
    assert "recipe" not in log_of(tmp_path / "stated")


def test_scaling_can_be_switched_off(recipe: Config, tmp_path: Path) -> None:
    off = {"base_batch_size": 16, "enable": False}
    assert rates(recipe, tmp_path / "off", auto_scale_lr=off) == rates(recipe, tmp_path / "stated")
    said = "the recipe is for 16: the learning rate stays 0.001; --auto-scale-lr scales it by 0.25"
    assert said in log_of(tmp_path / "off")


def test_a_resumed_run_is_not_scaled_twice(recipe: Config, tmp_path: Path) -> None:
    recipe.auto_scale_lr = {"base_batch_size": 16}
    straight = rates(recipe, tmp_path / "run")
    for step in (6, 8):
        (tmp_path / "run" / f"iter_{step}.pth").unlink()
    assert rates(recipe, tmp_path / "run", resume=True) == straight[4:]


def test_a_run_resumed_with_another_batch_has_the_rates_of_that_batch(recipe: Config, tmp_path: Path) -> None:
    recipe.auto_scale_lr = {"base_batch_size": 16}
    straight = rates(recipe, tmp_path / "run")
    for step in (6, 8):
        (tmp_path / "run" / f"iter_{step}.pth").unlink()
    recipe.train_dataloader.batch_size = 8
    assert rates(recipe, tmp_path / "run", resume=True) == scaled(straight[4:], by=2)


def test_accumulated_gradients_count_as_samples() -> None:
    assert lr_scaling.factor({"base_batch_size": 16}, Batch(2, 4, 2).total) == 1
    assert lr_scaling.factor({"base_batch_size": 16}, Batch(2, 4, 4).total) == 2


def test_only_absolute_values_of_learning_rates_are_scaled() -> None:
    schedule = [
        {"type": "LinearLR", "start_factor": 1e-3, "end": 5},
        {"type": "CosineAnnealingLR", "eta_min": 1e-5, "end": 9},
        {"type": "CosineAnnealingMomentum", "eta_min": 0.8},
    ]
    expected = [schedule[0], {**schedule[1], "eta_min": 5e-6}, schedule[2]]
    assert lr_scaling.scale_schedule(schedule, 0.5) == expected
    assert schedule[1]["eta_min"] == 1e-5


def test_scaling_without_a_batch_size_to_scale_from_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"auto_scale_lr\.base_batch_size is missing"):
        lr_scaling.factor({"enable": True}, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"auto_scale_lr": {"base_batchsize": 4}}, "Did you mean 'base_batch_size'"),
        ({"env_cfg": {"dist_cfg": {"time_out": 4}}}, "Did you mean 'timeout'"),
        ({"env_cfg": {"dist_cfg": {"timeout": "30min"}}}, "number of seconds"),
        ({"sync_bn": "mmcv"}, 'sync_bn is "torch" or None'),
    ],
)
def test_misspelt_options_are_refused(options: dict[str, Any], message: str, config: Config, tmp_path: Path) -> None:
    config.update(options)
    config.dump(tmp_path / "config.py")
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "config.py")


def test_the_options_of_the_tool_reach_the_run(
    recipe: Config, tmp_path: Path, call: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(Runner, "train", lambda self: found.append(lr_scaling.factor(self.auto_scale_lr, 4)))
    recipe.auto_scale_lr = {"base_batch_size": 16}
    recipe.dump(tmp_path / "recipe.py")
    for option in ([], ["--no-auto-scale-lr"], ["--auto-scale-lr"]):
        assert call("train", tmp_path / "recipe.py", "--work-dir", tmp_path / "run", *option) == 0
    assert found == [0.25, 1, 0.25]


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipes_are_for_whole_numbers_of_processes_and_those_of_reported_scores_for_one(path: Path) -> None:
    cfg = load_config(path)
    one = cfg.train_dataloader.batch_size * cfg.optim_wrapper.get("accumulative_counts", 1)
    processes, rest = divmod(cfg.auto_scale_lr.base_batch_size, one)
    assert rest == 0
    if path.stem in (ROOT / "docs" / "results.md").read_text():
        assert processes == 1, "the scores of docs/results.md are of one process: its rate must not be scaled"
