"""Every config describes something that can be built, and recipes of classification what their papers say."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from torchvision.tv_tensors import Image, Mask

from densevit.data.transforms import build_transforms
from densevit.engine.config import check_config, load_config
from densevit.errors import ConfigError
from densevit.registry import MODELS

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(p for p in (ROOT / "configs").rglob("*.py") if "_base_" not in p.parts)
IMAGENET = {"cmt_s": 26.256, "xcit_s12_p16": 26.253, "mvitv2_t": 24.173, "mit_b0": 3.319 + 0.257}  # M parameters


@pytest.fixture(autouse=True)
def _scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope("densevit"):
        yield


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_builds_its_model_and_trains_all_of_it(path: Path) -> None:
    cfg = load_config(path)
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    optimised = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(optimised) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_s_transforms_work_on_a_picture(path: Path) -> None:
    cfg = load_config(path)
    torch.manual_seed(0)
    picture = Image(torch.randint(0, 256, (3, 32, 32) if "cifar" in path.stem else (3, 375, 500), dtype=torch.uint8))
    dense = cfg.model.head.type != "ClassificationHead"
    label = Mask(torch.zeros(375, 500, dtype=torch.uint8)) if dense else torch.tensor(3)
    sizes = set()
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        transform = build_transforms(loader.dataset.transforms)
        for _ in range(5):  # random ones need not all be met at once
            image, fields = transform(picture, {"target": label})
            assert image.dtype == torch.uint8
            sizes.add(tuple(image.shape[1:]))
        if not dense:
            assert fields["target"] == 3
    if not dense:
        assert len(sizes) == 1, "training and validation differ in size"


@pytest.mark.parametrize("name", IMAGENET)
def test_a_recipe_of_imagenet_has_the_size_of_the_paper_s_model(name: str) -> None:
    with torch.device("meta"):
        model = MODELS.build(load_config(ROOT / "configs" / f"{name}_imagenet.py").model)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(IMAGENET[name], abs=6e-4)


def rates(cfg: Config, steps_per_epoch: int = 10) -> list[float]:
    """Return the learning rate at the beginning of each epoch, as the runner would set it, and after the last."""
    layer = torch.nn.Linear(1, 1)
    layer.backbone = type("None", (torch.nn.Module,), {"no_weight_decay": ()})()
    wrapper = build_optim_wrapper(layer, cfg.optim_wrapper)
    schedulers = [
        PARAM_SCHEDULERS.build({**s, "optimizer": wrapper, "epoch_length": steps_per_epoch})
        for s in cfg.param_scheduler
    ]
    found = [wrapper.optimizer.param_groups[0]["lr"]]
    for _ in range(cfg.train_cfg.max_epochs):
        for _ in range(steps_per_epoch):
            wrapper.optimizer.step()
            for scheduler in schedulers:
                scheduler.step()
        found.append(wrapper.optimizer.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize(
    ("name", "epochs", "warm_up", "lr", "first", "last"),
    [
        ("cmt_s", 300, 20, 1e-3, 1e-6, 1e-5),
        ("xcit_s12_p16", 400, 5, 1e-3, 1e-6, 1e-5),
        ("mvitv2_t", 300, 70, 2e-3, 1e-8, 1e-6),
        ("mit_b0", 300, 5, 1e-3, 1e-6, 1e-5),
    ],
)
def test_the_learning_rate_rises_and_falls_as_in_the_recipe(
    name: str, epochs: int, warm_up: int, lr: float, first: float, last: float
) -> None:
    found = rates(load_config(ROOT / "configs" / f"{name}_imagenet.py"))
    assert len(found) == epochs + 1
    assert found[0] == pytest.approx(first)
    assert found[warm_up] == pytest.approx(lr)
    assert found[epochs] == pytest.approx(last, rel=0.01)
    assert found[: warm_up + 1] == sorted(found[: warm_up + 1])
    assert found[warm_up:] == sorted(found[warm_up:], reverse=True)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        (
            "model",
            {"data_preprocessor": {"mixup": 0.8, "num_classes": 10}},
            "num_classes is 10 .* is 1000: make them equal",
        ),
        ("val_dataloader", {"repeats": 3}, "val_dataloader takes no 'repeats'"),
        ("train_dataloader", {"repeat": 3}, "Did you mean 'repeats'"),
    ],
)
def test_contradictions_in_a_recipe_are_refused(section: str, change: dict[str, Any], message: str) -> None:
    cfg = load_config(ROOT / "configs" / "mit_b0_imagenet.py")
    cfg[section].update(change)
    with pytest.raises(ConfigError, match=message):
        check_config(cfg)
