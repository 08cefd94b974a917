"""Every family of backbones trains and predicts with every segmentation head, as the configs combine them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from torch.optim import AdamW
from torchvision.tv_tensors import Image, Mask

from densevit.engine.config import load_config
from densevit.model import DenseModel
from densevit.registry import MODELS
from densevit.structures import Meta, Sample, SegTarget

CONFIGS = Path(__file__).parents[2] / "configs"
PLAIN = ["mixer_s32", "convmixer_256_8"]  # of one stride: a neck makes the others
BACKBONES = ["mit_b0", "mobilevit_xxs", "cmt_ti", "xcit_nano_12_p16", "mvitv2_t", *PLAIN]
HEADS = ["segformer_b0_ade20k", "fpn_xcit_s12_p16_ade20k", "upernet_xcit_s12_p16_ade20k"]
COMBINED = [
    "fpn_xcit_s12_p16_ade20k",
    "segformer_cmt_s_ade20k",
    "segformer_mobilevit_s_ade20k",
    "segformer_mvitv2_t_ade20k",
    "segformer_xcit_s12_p16_ade20k",
    pytest.param("upernet_xcit_s12_p16_ade20k", marks=pytest.mark.slow),
]


def sample(index: int, size: tuple[int, int], original: tuple[int, int]) -> Sample:
    generator = torch.Generator().manual_seed(index)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)
    mask = torch.randint(0, 7, original, dtype=torch.uint8, generator=generator)
    return Sample(Image(image), SegTarget(Mask(mask)), Meta(f"{index}.png", original, size))


def build(cfg: dict[str, Any], **options: Any) -> DenseModel:
    torch.manual_seed(0)
    model: DenseModel = MODELS.build({**cfg, "precision": "fp32", **options})
    return model


def train_once(model: DenseModel) -> None:
    """Make one step that moves a parameter if, and only if, it gets a gradient."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = OptimWrapper(AdamW(model.parameters(), lr=1e-3, weight_decay=0.0))
    losses = model.train().train_step([sample(i, (64, 64), (64, 64)) for i in range(2)], optimizer)
    assert all(loss.isfinite() for loss in losses.values())
    assert [n for n, p in model.named_parameters() if torch.equal(p, before[n])] == []


def predict_once(model: DenseModel) -> None:
    with torch.no_grad():
        predictions = model.eval().test_step([sample(2, (64, 96), (50, 77)), sample(3, (64, 64), (64, 64))])
    assert [tuple(p.mask.shape) for p in predictions] == [(50, 77), (64, 64)]
    assert all(int(p.mask.max()) < model.head.num_classes for p in predictions)


def small(name: str, backbone: str, **options: Any) -> DenseModel:
    """Return the model of a config with another backbone, its head and neck narrow."""
    cfg = Config.fromfile(CONFIGS / f"{name}.py").model.to_dict()
    cfg["backbone"] = {"type": backbone, "drop_path": 0.0}
    if backbone in PLAIN:
        cfg["neck"] = {"type": "SimplePyramid"}
    cfg["head"] |= {"num_classes": 7, "channels": 16, "dropout": 0.0}
    if "neck" in cfg:
        cfg["neck"] |= {"out_channels": 16}
    if "auxiliary" in cfg["head"]:
        cfg["head"]["auxiliary"] |= {"channels": 8, "dropout": 0.0}
    return build(cfg, **options)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_each_head_trains_and_predicts_on_each_backbone(backbone: str, name: str) -> None:
    model = small(name, backbone)
    train_once(model)
    predict_once(model)


@pytest.mark.parametrize("name", HEADS)
def test_each_head_trains_and_predicts_in_bf16(name: str) -> None:
    model = small(name, "mit_b0", precision="bf16")
    train_once(model)
    predict_once(model)


@pytest.mark.parametrize("name", HEADS)
def test_logits_do_not_depend_on_the_memory_layout(name: str) -> None:
    model, x = small(name, "mit_b0").eval(), torch.randn(2, 3, 64, 97)
    with torch.no_grad():
        torch.testing.assert_close(
            model(x.contiguous(memory_format=torch.channels_last)), model(x), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("name", COMBINED)
def test_each_config_trains_and_predicts_at_its_full_width(name: str) -> None:
    cfg = load_config(CONFIGS / f"{name}.py").model.to_dict()
    model = build(cfg, backbone={**cfg["backbone"], "drop_path": 0.0})
    train_once(model)
    predict_once(model)
