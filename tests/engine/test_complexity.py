"""MACs and parameters equal those counted by hand, attention included, and every part is listed once."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densevit.engine.complexity import Part, complexity
from densevit.features import Backbone, Features, FeatureSpec
from densevit.registry import BACKBONES, MODELS

ROOT = Path(__file__).parents[2]


class SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Tiny(Backbone):
    """Two stages with parts named as official releases do, and a parameter and a product of its own."""

    specs = (FeatureSpec(8, (4, 4)),)
    divisor = (4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.embed1 = nn.Conv2d(3, 8, 4, 4)
        self.block1 = nn.ModuleList([SelfAttention(8, 2)])
        self.stages = nn.ModuleList([nn.Linear(8, 8, bias=False), nn.Linear(8, 16, bias=False)])
        self.scale = nn.Parameter(torch.ones(16, 16))

    def forward(self, x: Tensor) -> Features:
        x = self.block1[0](self.embed1(x).flatten(2).transpose(1, 2))
        x = self.stages[1](self.stages[0](x)) @ self.scale
        return Features((x,))


def total(model: nn.Module, *size: int, channels: int = 3) -> Part:
    return complexity(model, size, channels)[0]


def test_a_convolution_costs_its_kernel_at_every_output() -> None:
    part = total(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), 10, 14, channels=4)
    assert (part.params, part.macs) == (6 * 2 * 9 + 6, 5 * 7 * 6 * 2 * 9)


def test_a_three_dimensional_convolution_is_counted() -> None:
    assert total(nn.Conv3d(1, 5, 3, padding=1), 4, 6, 8, channels=1).macs == 4 * 6 * 8 * 5 * 27


def test_a_linear_layer_costs_its_matrix_at_every_token() -> None:
    part = total(nn.Linear(7, 9), 5, 7, channels=3)
    assert (part.params, part.macs) == (7 * 9 + 9, 3 * 5 * 7 * 9)


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_costs_its_two_products_whatever_the_heads(heads: int) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = SelfAttention(16, heads)

        def forward(self, x: Tensor) -> Tensor:
            return self.attn(x[:, 0])

    assert total(Tokens(), 10, 16).macs == 10 * 16 * 48 + 2 * 10 * 10 * 16


def test_stages_of_a_backbone_are_listed_and_add_up() -> None:
    parts = complexity(Tiny(), (16, 16))
    tokens = 16
    attention = tokens * 8 * 24 + 2 * tokens * tokens * 8
    assert parts == [
        Part("total", 0, 392 + 216 + 64 + 128 + 256, tokens * 8 * 48 + attention + tokens * (64 + 128 + 256)),
        Part("stage 1 (embed1, block1, stages.1)", 1, 392 + 216 + 128, tokens * 8 * 48 + attention + tokens * 128),
        Part("stages.0", 1, 64, tokens * 64),
        Part("(own)", 1, 256, tokens * 256),
    ]


def test_a_backbone_inside_a_model_is_divided_too() -> None:
    model = nn.Sequential(Tiny())
    model.forward = lambda x: model[0](x).maps  # type: ignore[method-assign]
    assert [(part.name, part.depth) for part in complexity(model, (16, 16))] == [
        ("total", 0),
        ("0", 1),
        ("stage 1 (embed1, block1, stages.1)", 2),
        ("stages.0", 2),
        ("(own)", 2),
    ]


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    complexity(model, (8, 8))
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_the_parts_of_a_whole_model_add_up_to_it() -> None:
    options: dict[str, Any] = {"backbone": {"type": "mit_b0"}, "head": {"type": "SegFormerHead", "num_classes": 5}}
    parts = complexity(MODELS.build({"type": "DenseModel", **options}), (64, 96))
    for depth in (1, 2):
        whole = parts[0] if depth == 1 else next(part for part in parts if part.name == "backbone")
        listed = [part for part in parts if part.depth == depth]
        assert sum(part.params for part in listed) == whole.params
        assert sum(part.macs for part in listed) == whole.macs


def test_attention_makes_macs_grow_faster_than_the_image() -> None:
    small, large = (total(BACKBONES.build({"type": "mit_b0"}), n, n).macs for n in (256, 512))
    assert large > 4 * small


@pytest.mark.slow
@pytest.mark.parametrize(("argument", "shown"), [("mit_b0", "stage 4"), ("segformer_b0_camvid", "head")])
def test_the_tool_takes_a_backbone_or_a_config(argument: str, shown: str) -> None:
    command = [sys.executable, "-m", "densevit", "info", argument, "--size", "64", "64"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "total" in done.stdout
    assert shown in done.stdout


@pytest.mark.slow
def test_the_tool_suggests_a_backbone_for_a_misspelt_one() -> None:
    command = [sys.executable, "-m", "densevit", "info", "mit_bo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[:6]) == (2, "error:")
    assert "Did you mean 'mit_b" in done.stderr
