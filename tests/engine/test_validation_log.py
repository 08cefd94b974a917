from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook

from densevit.engine.config import check_config
from densevit.engine.curves import read_scalars
from densevit.engine.runner import Runner
from densevit.errors import ConfigError


class KeepMetrics(Hook):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        assert metrics is not None
        assert "mIoU" in metrics
        self.losses += [metrics["loss"]] if "loss" in metrics else []


def test_the_loss_of_a_validation_is_logged_without_those_of_earlier_ones(config: Config) -> None:
    config.default_hooks.logger = {"type": "LoggerHook", "interval": 4, "log_metric_by_epoch": False}
    runner = Runner.from_cfg(config)
    keep = KeepMetrics()
    runner.register_hook(keep)
    runner.train()
    logged = [value for _, value in read_scalars(Path(runner.work_dir))["val/loss"]]
    assert len(logged) == 2
    assert logged == pytest.approx(keep.losses, rel=1e-3)
    assert keep.losses[0] != pytest.approx(keep.losses[1], rel=1e-3)


def test_a_validation_may_go_without_the_loss(config: Config) -> None:
    config.val_cfg = {"loss": False}
    runner = Runner.from_cfg(config)
    keep = KeepMetrics()
    runner.register_hook(keep)
    runner.train()
    assert keep.losses == []
    assert not any("loss" in name for name in read_scalars(Path(runner.work_dir)) if name.startswith("val/"))


def test_what_a_validation_does_not_take_is_refused(config: Config) -> None:
    config.val_cfg = {"los": False}
    with pytest.raises(ConfigError, match=r"val_cfg takes no 'los'\. Did you mean 'loss'"):
        check_config(config)
