"""Names in configs build registered things only, and a wrong one says what was meant."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from densevit.errors import ConfigError
from densevit.registry import BACKBONES, DATASETS, HEADS, HOOKS, MODELS, OPTIMIZERS, PARAM_SCHEDULERS, accepted_keys


def test_the_nearest_name_is_suggested() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'mit_b0'"):
        BACKBONES.build({"type": "mitb0"})


def test_the_nearest_key_is_suggested() -> None:
    with pytest.raises(ConfigError, match=r"mit_b0' takes no 'drop_paht'. Did you mean 'drop_path'"):
        BACKBONES.build({"type": "mit_b0", "drop_paht": 0.1})


def test_a_key_that_is_needed_is_named() -> None:
    with pytest.raises(ConfigError, match=r"head 'SegFormerHead' needs 'num_classes': add it"):
        HEADS.build({"type": "SegFormerHead"}, {"specs": ()})


@pytest.mark.parametrize("registry", [MODELS, BACKBONES, HEADS, HOOKS, OPTIMIZERS])
def test_a_dotted_path_is_never_imported(registry: object) -> None:
    with pytest.raises(ConfigError, match="not a registered"):
        registry.build({"type": "subprocess.check_output", "args": ["echo", "run by a config"]})  # type: ignore[attr-defined]


def test_mmengine_itself_builds_no_dotted_path_in_our_scope() -> None:
    from mmengine.registry import HOOKS as ROOT
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("densevit"), pytest.raises(ConfigError):
        ROOT.build({"type": "subprocess.check_output", "args": ["echo", "run by a config"]})


def test_an_import_error_in_a_user_s_module_is_raised_as_itself(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from densevit.registry import Registry

    (tmp_path / "broken_backbone.py").write_text("import a_package_that_does_not_exist\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_does_not_exist"):
        Registry("thing", ["broken_backbone"]).get("anything")


def test_names_of_mmengine_are_found_too() -> None:
    OPTIMIZERS.check({"type": "AdamW", "lr": 0.1})
    PARAM_SCHEDULERS.check({"type": "PolyLR", "power": 1.0, "begin": 0, "by_epoch": False})
    with pytest.raises(ConfigError, match="power"):
        PARAM_SCHEDULERS.check({"type": "PolyLR", "powr": 1.0})


@pytest.mark.parametrize("wrapper", ["ConcatDataset", "RepeatDataset", "ClassBalancedDataset"])
def test_mmengine_s_wrappers_of_its_own_datasets_are_refused(wrapper: str) -> None:
    with pytest.raises(ConfigError, match=f"'{wrapper}' is not a registered dataset"):
        DATASETS.check({"type": wrapper})


def test_an_unknown_name_is_looked_for_elsewhere() -> None:
    with pytest.raises(ConfigError, match=r"custom_imports\. Models of timm are .*Known: "):
        BACKBONES.get("TwoPath")
    with pytest.raises(ConfigError, match="docs/coming_from"):
        MODELS.get("EncoderDecoder")


def test_a_class_without_a_constructor_takes_no_key() -> None:
    class Plain:
        pass

    assert accepted_keys(Plain) == set()


def test_importing_densevit_is_quick_and_loads_no_torch() -> None:
    code = "import time; t = time.time(); import densevit, sys; print(time.time() - t, 'torch' in sys.modules)"
    seconds, torch_loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert float(seconds) < 0.2
    assert torch_loaded == "False"


def test_a_torchvision_made_for_another_torch_is_named(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    tool = Path(__file__).parents[1] / "tools" / "train.py"
    config = tool.parents[1] / "configs" / "segformer_b0_ade20k.py"
    done = subprocess.run(
        [sys.executable, tool, config, "--work-dir", tmp_path / "run"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: torchvision does not match torch")
    assert "pip install -U torch torchvision" in done.stderr.strip().splitlines()[-1]


def test_every_public_name_can_be_imported() -> None:
    import densevit

    for name in densevit.__all__:
        assert getattr(densevit, name) is not None


def test_models_are_listed_and_built_by_name() -> None:
    import torch

    from densevit import create_model, list_models

    assert list_models("mit_b*") == [f"mit_b{i}" for i in range(6)]
    model = create_model("mit_b0", task="segmentation", num_classes=7, drop_path=0.0).eval()
    assert model(torch.zeros(1, 3, 64, 96)).shape == (1, 7, 16, 24)
    with pytest.raises(ConfigError, match="segmentation"):
        create_model("mit_b0", task="segmentatoin")
