"""Every config describes something that can be built, and recipes of classification what their papers say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from monai.data import MetaTensor
from torch import Tensor
from torchvision.tv_tensors import BoundingBoxes, Image, Mask, Video

from densevit.data.readers import IMAGE_SUFFIXES
from densevit.data.transforms import build_transforms
from densevit.data.volume_transforms import build_volume_transforms
from densevit.engine.config import check_config, load_config
from densevit.engine.plain_config import from_plain, to_plain
from densevit.errors import ConfigError
from densevit.registry import DATASETS, HEADS, MODELS
from densevit.structures import Meta, Sample

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(p for p in (ROOT / "configs").rglob("*.py") if "_base_" not in p.parts)
VOLUMES = [p for p in CONFIGS if p.stem.startswith("unetr")]
IMAGENET = {"cmt_s": 26.256, "xcit_s12_p16": 26.253, "mvitv2_t": 24.173, "mit_b0": 3.319 + 0.257}  # M parameters
IMAGENET["mobilevit_s"] = 5.579
IMAGENET["vit_s16"] = 22.050 + 0.148 - 0.075  # with a representation, without learnt positions
IMAGENET["mixer_b16"] = 59.880
IMAGENET["deepvit_s"] = 27.313


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


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_is_the_same_after_it_was_plain_data(path: Path) -> None:
    cfg = load_config(path)
    again = from_plain(json.loads(json.dumps(to_plain(cfg))), path.name)
    with torch.device("meta"):
        assert repr(MODELS.build(again.model)) == repr(MODELS.build(cfg.model))
    kind = DATASETS.get(cfg.test_dataloader.dataset.type)
    first, second = (kind.preparation(c.test_dataloader.dataset) for c in (cfg, again))
    if kind.pipelines.keys() == {"transforms"}:
        image = picture(375, 500)
        if kind.suffixes != IMAGE_SUFFIXES:
            image = Video(torch.stack([image] * cfg.test_dataloader.dataset.sampling.frames))
        assert torch.equal(first(image), second(image))
    else:
        voxels = 200 * torch.rand(1, 40, 40, 40)  # which MONAI may change in place
        found = [prepare(MetaTensor(voxels.clone(), torch.eye(4))).as_tensor() for prepare in (first, second)]
        assert torch.equal(*found)


def transformed(cfg: Config, picture: Tensor, fields: dict[str, Any]) -> list[tuple[Tensor, dict[str, Any]]]:
    """Return what the transforms of training, and then those of validation, make of a picture in five tries each."""
    loaders = (cfg.train_dataloader, cfg.val_dataloader)
    transforms = [build_transforms(loader.dataset.transforms) for loader in loaders]
    torch.manual_seed(0)
    return [transform(picture, dict(fields)) for transform in transforms for _ in range(5)]  # not all are met at once


def picture(height: int, width: int) -> Tensor:
    torch.manual_seed(0)
    return Image(torch.randint(0, 256, (3, height, width), dtype=torch.uint8))


@pytest.mark.parametrize("path", sorted({*CONFIGS} - {*VOLUMES}), ids=lambda p: p.stem)
def test_every_config_s_transforms_work_on_a_picture(path: Path) -> None:
    cfg = load_config(path)
    size = (32, 32) if "cifar" in path.stem else (375, 500)
    classifies = cfg.model.head.type in ("ClassificationHead", "VideoHead")
    detects = hasattr(HEADS.get(cfg.model.head.type), "masks")
    if classifies:
        fields: dict[str, Any] = {"target": torch.tensor(3)}
    elif detects:
        fields = objects(cfg.train_dataloader.dataset.get("masks", False))
    else:
        fields = {"mask": Mask(torch.zeros(375, 500, dtype=torch.uint8))}
    image = picture(*size)
    if cfg.model.head.type == "VideoHead":
        image = Video(torch.stack([image] * cfg.train_dataloader.dataset.sampling.frames))
    found = transformed(cfg, image, fields)
    assert all(image.dtype == torch.uint8 for image, _ in found)
    if classifies:
        assert all(after["target"] == 3 for _, after in found)
        cropped = cfg.model.get("inference", {}).get("type") == "ClipViews"  # from larger frames, by the model
        assert cropped or len({image.shape for image, _ in found}) == 1, "training and validation differ in size"
    if detects:
        for image, after in found[:5]:
            assert len({len(after[name]) for name in ("boxes", "labels", "crowd", "area")}) == 1
            assert after["boxes"].canvas_size == image.shape[1:]
            assert after["masks"] is None or after["masks"].shape == (len(after["boxes"]), *image.shape[1:])
        assert all(torch.equal(after["boxes"], fields["boxes"]) for _, after in found[5:])


def objects(masks: bool) -> dict[str, Any]:
    """Return what the target of a picture of 375 x 500 pixels holds."""
    boxes = torch.tensor([[20.0, 30, 220, 330], [200, 100, 480, 370]])
    filled = torch.zeros(2, 375, 500, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(filled, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    return {
        "boxes": BoundingBoxes(boxes, format="XYXY", canvas_size=(375, 500)),
        "labels": torch.tensor([0, 0]),
        "crowd": torch.zeros(2, dtype=torch.bool),
        "area": torch.tensor([60_000.0, 75_600.0]),
        "masks": Mask(filled) if masks else None,
        "image_id": torch.tensor(1),
    }


@pytest.mark.filterwarnings("ignore:no available indices of class")
@pytest.mark.parametrize("path", VOLUMES, ids=lambda p: p.stem)
def test_every_config_of_volumes_trains_on_windows_and_evaluates_whole_volumes(path: Path) -> None:
    cfg = load_config(path)
    options, window = cfg.train_dataloader.dataset, tuple(cfg.model.inference.window)
    assert options.prepare == cfg.val_dataloader.dataset.prepare
    assert "transforms" not in cfg.val_dataloader.dataset
    assert len(options.classes) == cfg.model.head.num_classes
    assert not cfg.val_cfg.loss, "there is none"
    affine = torch.diag(torch.tensor([-2.0, 2.0, 3.0, 1.0], dtype=torch.float64))  # reversed, as those of CT are
    torch.manual_seed(0)
    image = MetaTensor(200 * torch.rand(1, 50, 60, 48), affine)
    mask = torch.zeros(1, 50, 60, 48)
    mask[:, 10:40, 10:50, 10:40] = 2
    prepare, transforms = (build_volume_transforms(cfgs) for cfgs in (options.prepare, options.transforms))
    assert not prepare.random
    assert prepare({"image": image})["image"].shape[0] == 1  # as in predictions, without a mask
    prepared = prepare({"image": image, "mask": MetaTensor(mask, affine)})
    for _ in range(3):
        found = transforms(dict(prepared))
        assert found["image"].shape == found["mask"].shape == (1, *window)
        assert set(found["mask"].unique().tolist()) <= {0, 2}
        assert found["mask"].any()


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
        ("vit_s16", 90, 8, 1e-3, 1e-7, 3.67e-9),  # zero is a step further
        ("mobilevit_s", 300, 22, 2e-3, 2e-4, 2e-4),
        ("mixer_b16", 300, 32, 1e-3, 1e-6, 1e-8),
        ("deepvit_s", 300, 5, 5e-4, 1e-6, 1e-5),
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


def test_mobilevit_sees_images_of_each_size_without_padding() -> None:
    cfg = load_config(ROOT / "configs" / "mobilevit_s_imagenet.py")
    preprocessor = MODELS.build({"type": "ImagePreprocessor", **cfg.model.data_preprocessor})
    sizes = cfg.train_dataloader.multi_scale.sizes
    assert sizes == (160, 192, 256, 288, 320)
    for size in sizes:
        image = Image(torch.full((3, size, size), 255, dtype=torch.uint8))
        inputs = preprocessor([Sample(image, None, Meta("", (size, size), (size, size)))], training=True)["inputs"]
        assert torch.equal(inputs, torch.ones(1, 3, size, size))


def test_mobilevit_decays_every_parameter_for_imagenet_and_all_but_norms_for_ade20k() -> None:
    decays = {}
    for name in ("mobilevit_s_imagenet", "segformer_mobilevit_s_ade20k"):
        cfg = load_config(ROOT / "configs" / f"{name}.py")
        with torch.device("meta"):
            model = MODELS.build(cfg.model)
        groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
        found = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        decays[name] = {key: found[id(p)] for key, p in model.backbone.named_parameters()}
    assert set(decays["mobilevit_s_imagenet"].values()) == {0.01}
    dense = decays["segformer_mobilevit_s_ade20k"]
    assert dense["layer_5.1.global_rep.3.weight"] == dense["layer_5.1.fusion.block.norm.bias"] == 0
    assert dense["layer_5.1.global_rep.0.pre_norm_mha.1.qkv_proj.weight"] == 0.01


def test_one_cycle_rises_falls_to_a_twentieth_and_ends_at_nothing() -> None:
    found = rates(load_config(ROOT / "configs" / "convmixer_256_8_cifar10.py"))
    expected = {0: 1e-5, 30: 5e-3, 60: 1e-2, 90: 5.25e-3, 120: 5e-4, 135: 2.5e-4, 150: 0.0}
    assert {epoch: found[epoch] for epoch in expected} == pytest.approx(expected, rel=0.01, abs=1e-9)


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


@pytest.mark.parametrize(
    ("name", "lr", "epochs", "falls"),
    [
        ("retinanet_cmt_s", 1e-4, 12, (8, 11)),
        ("mask_rcnn_cmt_s", 2e-4, 12, (8, 11)),
        ("mask_rcnn_xcit_s12_p16", 1e-4, 36, (27, 33)),
    ],
)
def test_detectors_learn_at_a_tenth_twice(name: str, lr: float, epochs: int, falls: tuple[int, int]) -> None:
    cfg = load_config(ROOT / "configs" / f"{name}_coco.py")
    wrapper = build_optim_wrapper(torch.nn.Linear(1, 1), {**cfg.optim_wrapper, "paramwise_cfg": None})
    schedulers = [PARAM_SCHEDULERS.build({**s, "optimizer": wrapper}) for s in cfg.param_scheduler]
    found = [wrapper.optimizer.param_groups[0]["lr"]]
    for _ in range(cfg.train_cfg.max_epochs):
        for _ in range(501):
            wrapper.optimizer.step()
            schedulers[0].step()
        schedulers[1].step()
        found.append(wrapper.optimizer.param_groups[0]["lr"])
    expected = [lr * (1, 0.1, 0.01)[sum(epoch >= fall for fall in falls)] for epoch in range(1, epochs + 1)]
    assert found == pytest.approx([lr * 1e-3, *expected])


def test_mvitv2_decays_neither_norms_nor_positions_when_it_detects() -> None:
    cfg = load_config(ROOT / "configs" / "mask_rcnn_mvitv2_t_coco.py")
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0 if "norm" in name or "rel_pos" in name else 0.1), name
