"""A wrong config fails before any data is read."""

import re
from pathlib import Path

import pytest
from mmengine.config import Config

from densevit.engine.config import check_config, load_config
from densevit.errors import ConfigError

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(p for p in (ROOT / "configs").rglob("*.py") if "_base_" not in p.parts)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_is_right(path: Path) -> None:
    load_config(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.backbone.type", "MiTT", "Did you mean 'MiT'"),
        ("model.backbone.dropout_path", 0.1, "Did you mean 'drop_path'"),
        ("model.head.type", "SegformerHead", "Did you mean 'SegFormerHead'"),
        ("model.presicion", "fp32", "Did you mean 'precision'"),
        ("train_dataloader.batchsize", 4, "Did you mean 'batch_size'"),
        ("train_dataloader.dataset.type", "SegDatset", "Did you mean 'SegDataset'"),
        ("train_dataloader.dataset.transforms.0.ration", 4, "Did you mean 'ratio'"),
        ("val_evaluator.type", "MIoU", "not a registered metric"),
        ("optim_wrapper.optimizer.type", "AdmW", "Did you mean 'AdamW'"),
        ("optim_wrapper.optimizer.weight_deacy", 1, "Did you mean 'weight_decay'"),
        ("param_scheduler.0.type", "PolyLr", "Did you mean 'PolyLR'"),
        ("train_cfg.max_iter", 4, "Did you mean 'max_iters'"),
        ("default_hooks.checkpoint.intervall", 4, "Did you mean 'interval'"),
        ("train_dataloder", {}, "Did you mean 'train_dataloader'"),
    ],
)
def test_a_misspelling_is_named_and_corrected(config: Config, key: str, value: object, message: str) -> None:
    config.merge_from_dict({key: value})
    with pytest.raises(ConfigError, match=message):
        check_config(config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train_dataloader.batch_size", 0),
        ("train_dataloader.batch_size", "four"),
        ("val_dataloader.batch_size", 2.5),
        ("train_dataloader.num_workers", -1),
        ("train_cfg.val_interval", 0),
        ("train_cfg.max_iters", 0),
        ("train_cfg.max_iters", True),
        ("model.head.num_classes", "eleven"),
        ("model.head.num_classes", None),
        ("optim_wrapper.optimizer.lr", "abc"),
        ("optim_wrapper.optimizer.lr", (0, 1)),  # what 0,001 is read as
        ("optim_wrapper.optimizer.lr", -1),
        ("optim_wrapper.optimizer.lr", float("nan")),
    ],
)
def test_an_impossible_number_is_named(config: Config, key: str, value: object) -> None:
    config.merge_from_dict({key: value})
    with pytest.raises(ConfigError, match=f"{re.escape(key)} is .*, not {re.escape(repr(value))}"):
        check_config(config)


def test_an_option_must_name_an_existing_key(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "config.py"
    config.dump(path)
    assert load_config(path, {"model.backbone.drop_path": 0.5}).model.backbone.drop_path == 0.5
    assert load_config(path, {"train_dataloader.dataset.transforms.0.ratio": (1, 2)})
    with pytest.raises(ConfigError, match="Did you mean 'model'"):
        load_config(path, {"modell.backbone.drop_path": 0.5})
    with pytest.raises(ConfigError, match="Did you mean 'work_dir'"):
        load_config(path, {"workdir": "x"})


def test_a_missing_config_names_its_neighbours() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'segformer_b0_ade20k\.py'"):
        load_config(ROOT / "configs" / "segformer_b0_ade20.py")


@pytest.mark.parametrize("name", ["segformer_b0_ade20k", "segformer_b0_ade20k.py", "demo/segformer_b0_shapes"])
def test_a_config_of_ours_is_found_by_name_from_anywhere(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = (ROOT / "configs" / name).with_suffix(".py")
    assert load_config(name).pretty_text == load_config(file).pretty_text
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/segformer_b0_ade20k.py").write_text("model = dict(type='mine')")
    with pytest.raises(ConfigError, match="'mine' is not a registered model"):
        load_config("mine/segformer_b0_ade20k.py")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("segformer_b0_ade20", "Did you mean 'segformer_b0_ade20k'"),
        ("configs/segformer_b0_ade20.py", "Did you mean 'segformer_b0_ade20k'"),
        ("zzz", r"Those of densevit are in .*configs"),
    ],
)
def test_a_wrong_name_of_a_config_gets_the_nearest_right_one(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        load_config(name)


def test_a_user_s_backbone_beside_the_config_is_found_and_trained(config: Config, tmp_path: Path) -> None:
    (tmp_path / "my_backbone.py").write_text(
        """
import torch
from densevit import BACKBONES, Backbone, Features, FeatureSpec

@BACKBONES.register_module()
class Pyramid(Backbone):
    divisor = (8, 8)

    def __init__(self, width: int = 8):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, width, 4, 4)
        self.down = torch.nn.Conv2d(width, 2 * width, 2, 2)
        self.specs = (FeatureSpec(width, (4, 4)), FeatureSpec(2 * width, (8, 8)))

    def forward(self, x):
        fine = self.stem(x).relu()
        return Features((fine, self.down(fine).relu()))
"""
    )
    config.custom_imports = {"imports": ["my_backbone"]}
    config.model.backbone = {"_delete_": True, "type": "Pyramid", "width": 12}
    config.model.backbone.pop("_delete_")
    config.train_cfg.max_iters = 2
    path = tmp_path / "config.py"
    config.dump(path)
    cfg = load_config(path)

    from densevit.engine.runner import Runner

    runner = Runner.from_cfg(cfg)
    runner.train()
    assert type(runner.model.backbone).__name__ == "Pyramid"
    assert (tmp_path / "run" / "iter_2.pth").exists()


def test_a_module_that_is_not_there_is_named_and_one_that_fails_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    base = '_base_ = "densevit::segformer_b0_ade20k.py"\ncustom_imports = '
    path.write_text(base + 'dict(imports=["no_such_module"])')
    with pytest.raises(ConfigError, match=f"no module 'no_such_module' of custom_imports.*{tmp_path}"):
        load_config(path)
    path.write_text(base + 'dict(imports="no_such_module", allow_failed_imports=True)')
    assert load_config(path).model.backbone.type == "mit_b0"
    path.write_text(base + '["no_such_module"]')
    with pytest.raises(ConfigError, match=r"custom_imports is dict\(imports="):
        load_config(path)
    (tmp_path / "imports_more.py").write_text("import no_such_package")
    path.write_text(base + 'dict(imports=["imports_more"])')
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        load_config(path)


def test_a_base_may_be_one_of_ours_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text('_base_ = ["densevit::segformer_b0_ade20k.py"]\nmodel = dict(head=dict(num_classes=7))\n')
    cfg = load_config(path)
    assert (cfg.model.head.num_classes, cfg.model.backbone.type) == (7, "mit_b0")
    assert cfg.train_dataloader == load_config("segformer_b0_ade20k").train_dataloader
    path.write_text('_base_ = "densevit::segformer_b0_ade20"\n')
    with pytest.raises(ConfigError, match=r"no config .*ade20\.py\. Did you mean 'segformer_b0_ade20k\.py'"):
        load_config(path)


def test_mmengine_is_as_it_was_after_a_config_was_read(tmp_path: Path) -> None:
    before = vars(Config)["_get_cfg_path"]
    (tmp_path / "bad.py").write_text('_base_ = "densevit::segformer_b0_ade20k.py"\n1 / 0\n')
    with pytest.raises(ZeroDivisionError):
        load_config(tmp_path / "bad.py")
    assert vars(Config)["_get_cfg_path"] is before
