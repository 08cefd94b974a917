"""Averaged weights: how they are averaged, and that they are what is validated, saved and tested."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import nn

from densevit.engine.ema import WarmupEMA
from densevit.engine.runner import Runner
from densevit.errors import ConfigError
from densevit.weights import read_file


def averages(values: list[float], momentum: float) -> list[float]:
    """Return the average after each of the steps that leave a weight at ``values``."""
    layer = nn.Linear(1, 1, bias=False)
    ema, found = WarmupEMA(layer, momentum), []
    for value in values:
        nn.init.constant_(layer.weight, value)
        ema.update_parameters(layer)
        found.append(ema.module.weight.item())
    return found


def test_the_average_begins_at_the_first_weights_and_its_decay_grows() -> None:
    found = averages([5.0, 1.0, 1.0, 1.0], momentum=0.0001)
    decays = [(1 + t) / (10 + t) for t in (1, 2, 3)]
    expected = [5.0]
    for decay in decays:
        expected.append(decay * expected[-1] + (1 - decay) * 1.0)
    assert found == pytest.approx(expected)


def test_the_decay_stops_at_one_minus_momentum() -> None:
    found = averages([0.0] * 30 + [1.0], momentum=0.5)
    assert found[-1] == pytest.approx(0.5)


def test_the_initial_weights_are_forgotten() -> None:
    found = averages([100.0] + [1.0] * 1000, momentum=0.0001)
    assert found[-1] == pytest.approx(1.0, abs=1e-3)


def test_statistics_of_batch_norm_are_averaged_and_its_count_is_copied() -> None:
    norm = nn.BatchNorm1d(1, affine=False)
    ema = WarmupEMA(norm)
    for value in (0.0, 11.0):
        norm.running_mean.fill_(value)
        norm.num_batches_tracked.fill_(int(value))
        ema.update_parameters(norm)
    assert ema.module.running_mean.item() == pytest.approx(11.0 * 9 / 11)
    assert ema.module.num_batches_tracked.item() == 11


@pytest.mark.parametrize("momentum", [0.0, 1.0, 2.0])
def test_a_momentum_out_of_range_is_refused(momentum: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        WarmupEMA(nn.Linear(1, 1), momentum)


def test_a_misspelt_option_is_refused_before_the_data_are_read(config: Config) -> None:
    config.custom_hooks = [{"type": "EMAHook", "ema_type": "WarmupEMA", "momentm": 0.1}]
    with pytest.raises(ConfigError, match="Did you mean 'momentum'"):
        Runner.from_cfg(config)


class Recorder(Hook):
    def __init__(self, scores: list[dict[str, float]]) -> None:
        self.scores = scores

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.scores.append(dict(metrics or {}))


@pytest.mark.parametrize("kind", ["WarmupEMA", "ExponentialMovingAverage"])
def test_testing_a_checkpoint_gives_the_scores_of_its_validation(config: Config, tmp_path: Path, kind: str) -> None:
    config.custom_hooks = [{"type": "EMAHook", "ema_type": kind, "momentum": 0.2}]
    scores: list[dict[str, float]] = []
    runner = Runner.from_cfg(config)
    runner.register_hook(Recorder(scores))
    runner.train()
    again = runner.test()  # in the process that has trained

    def tested(**changes: Any) -> dict[str, float]:
        cfg = config.copy()
        cfg.update({"work_dir": str(tmp_path / "test"), "load_from": str(tmp_path / "run" / "iter_8.pth"), **changes})
        return Runner.from_cfg(cfg).test()

    expected = {name: value for name, value in scores[-1].items() if "loss" not in name}
    assert again == tested() == tested(custom_hooks=[]) == expected
    saved = read_file(tmp_path / "run" / "iter_8.pth")
    key = "head.linear_pred.weight"
    assert not torch.equal(saved["state_dict"][key], saved["ema_state_dict"][f"module.{key}"])
    assert torch.equal(saved["ema_state_dict"][f"module.{key}"], runner.model.state_dict()[key])
