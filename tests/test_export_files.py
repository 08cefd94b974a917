"""Exported files give what the model gives: for each task, and for the families of backbones."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from densevit.api import create_model
from densevit.errors import ConfigError
from densevit.export.comparison import TOLERANCE, difference
from densevit.export.files import Run, example, load, trace, write
from densevit.export.graph import Graph, fold_batch_norms
from densevit.export.sizes import input_size
from densevit.model import DenseModel
from densevit.registry import MODELS

Files = Callable[..., tuple[Graph, list[Run]]]
TINY = {"dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
FEW = {
    "channels": 8,
    "num_convs": 1,
    "max_per_level": 100,
}
TWO_STAGES = {"rpn_channels": 8, "fc_channels": 16, "mask_channels": 8, "mask_convs": 1}
# Smallest variants with few blocks. Sizes vary where that takes seconds; elsewhere it was seen once, docs/export.md.
FAMILIES: dict[str, tuple[dict[str, Any], Sequence[int], bool]] = {
    "cct_2_3x2_32": ({}, (32, 32), True),
    "cmt_ti": ({"depths": (1, 1, 1, 1)}, (64, 96), False),
    "convmixer_256_8": ({"depth": 2}, (32, 32), True),
    "deepvit_16b": ({"depth": 2, "reattention_blocks": 1}, (64, 96), True),
    "dhvt_tiny_cifar_patch4": ({"depth": 2}, (32, 32), False),
    "factorised_vit_ti16": ({"depth": 2, "backbone": {"depth": 2}}, (4, 32, 48), False),
    "mit_b0": ({"depths": (1, 1, 1, 1)}, (64, 96), False),
    "mixer_s32": ({"depth": 2}, (96, 64), True),
    "mobilevit_xxs": ({"depths": (1, 1, 1)}, (128, 128), False),
    "mvitv1_b": ({"depths": (1, 1, 1, 2)}, (64, 96), False),
    "mvitv2_t": ({"depths": (1, 1, 1, 1)}, (64, 96), False),
    "mvitv2_t_window": ({"depths": (1, 1, 1, 1)}, (64, 96), False),
    "mvitv2_xs_16": ({"depths": (1, 1, 1, 1)}, (4, 64, 96), False),
    "timesformer_base": ({"depth": 2, "dim": 96, "num_heads": 3, "hidden": 192}, (4, 32, 48), False),
    "vit_lite_2_4_32": ({}, (32, 32), True),
    "vit_ti16": ({"depth": 2}, (64, 96), True),
    "xcit_nano_12_p16": ({"depth": 2}, (64, 96), False),
}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    def make(
        model: DenseModel, space: Sequence[int], static: bool = False, forms: Sequence[str] = ("onnx",)
    ) -> tuple[Graph, list[Run]]:
        """Return the graph, and what runs the files that are written of it; batch norms are folded in these."""
        size, folded = input_size(model, space, static), Graph(model)
        fold_batch_norms(folded, example(folded, 1, size.space))
        program = trace(folded, size)
        paths = [tmp_path / f"model.{form}" for form in forms]
        for path, form in zip(paths, forms, strict=True):
            write(program, path, form, {})
        return Graph(model), [load(path, form) for path, form in zip(paths, forms, strict=True)]

    return make


def images(*shape: int, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return 255 * torch.rand(*shape)


def assert_same(graph: Graph, runs: Sequence[Run], x: Tensor) -> dict[str, Any]:
    with torch.no_grad():
        expected = {name: value.numpy() for name, value in graph(x).items()}
    for run in runs:
        largest, alone = difference(expected, run(x))
        assert largest < TOLERANCE / 10
        assert alone == 0
    return expected


@pytest.mark.slow
def test_a_single_size_is_a_single_size(files: Files) -> None:
    torch.manual_seed(0)
    model = create_model("MiT", "segmentation", num_classes=3, **TINY).eval()
    graph, runs = files(model, (50, 70), static=True)
    assert_same(graph, runs, images(1, 3, 50, 70))
    with pytest.raises(Exception, match="invalid dimensions"):
        runs[0](images(2, 3, 50, 70))


@pytest.mark.slow
def test_segmentation_at_several_sizes(files: Files) -> None:
    torch.manual_seed(0)
    model = create_model("MiT", "segmentation", num_classes=3, **TINY).eval()
    graph, runs = files(model, (96, 128), forms=("onnx", "pt2"))
    for shape in ((1, 3, 64, 64), (2, 3, 96, 128), (3, 3, 160, 64)):
        logits = assert_same(graph, runs, images(*shape))["logits"]
        assert logits.shape == (shape[0], 3, shape[2] // 4, shape[3] // 4)


@pytest.mark.slow
def test_a_pyramid_whose_coarsest_cells_reach_beyond_the_image(files: Files) -> None:
    torch.manual_seed(0)
    options = {"dim": 16, "depth": 4, "num_heads": 2, "hidden": 32}
    neck = {"type": "SimplePyramid", "out_channels": 8}
    model = create_model("ViT", "segmentation", num_classes=3, head={"channels": 8}, neck=neck, **options).eval()
    graph, runs = files(model, (96, 128))
    for space in ((96, 128), (112, 144), (48, 80)):
        assert_same(graph, runs, images(2, 3, *space))


def surest_and_least_sure(model: DenseModel) -> Tensor:
    """Return two images, and set the threshold of scores so that there are objects in the first only."""
    model.head.score_threshold = 0.0
    x = images(6, 3, 128, 160) * torch.linspace(0.2, 1, 6).view(-1, 1, 1, 1)
    with torch.no_grad():
        best = Graph(model)(x)["scores"].max(dim=1).values
    model.head.score_threshold = float(best.max() + best.min()) / 2
    return x[[int(best.argmax()), int(best.argmin())]]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detection", "instance_segmentation"])
def test_detectors_with_and_without_objects_at_several_sizes(files: Files, task: str) -> None:
    torch.manual_seed(0)
    two_stages = task == "instance_segmentation"
    neck = {"type": "FPN", "out_channels": 8, "start_level": int(not two_stages), "num_outs": 4}
    head = {**(TWO_STAGES if two_stages else FEW), "max_per_image": 20}
    model = create_model("MiT", task, num_classes=3, head=head, neck=neck, **TINY).eval()
    with torch.no_grad():
        for name, value in model.head.named_parameters():
            if any(part in name for part in ("retina_", "rpn_cls", "rpn_reg", "fc_cls", "fc_reg", "conv_logits")):
                value.normal_(std=0.3)
    x = surest_and_least_sure(model)
    graph, runs = files(model, (128, 160) if two_stages else (160, 160), forms=("onnx", "pt2"))
    count = assert_same(graph, runs, x)["count"]
    assert count[0] > count[1] == 0
    assert assert_same(graph, runs, x[1:])["count"] == [0]
    assert assert_same(graph, runs, images(3, 3, 192, 160, seed=1))["boxes"].shape == (3, 20, 4)


@pytest.mark.slow
def test_windows_of_volumes(files: Files) -> None:
    torch.manual_seed(0)
    vit = {"type": "UNETRViT", "dim": 16, "depth": 2, "num_heads": 2, "hidden": 32, "taps": (1,)}
    model = MODELS.build(
        {
            "type": "DenseModel",
            "backbone": {**vit, "patch_size": 8, "img_size": 16},
            "head": {"type": "UNETRHead", "num_classes": 3, "feature_size": 2},
            "data_preprocessor": {"mean": (100,), "std": (50,)},
        }
    ).eval()
    graph, runs = files(model, (16, 16, 16), forms=("onnx", "pt2"))
    for batch in (1, 3):
        assert assert_same(graph, runs, images(batch, 1, 16, 16, 16))["logits"].shape == (batch, 3, 16, 16, 16)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_backbones(files: Files, name: str) -> None:
    options, space, varies = FAMILIES[name]
    torch.manual_seed(0)
    model = create_model(name, "video" if len(space) == 3 else "classification", num_classes=5, **options).eval()
    torch.nn.init.normal_(model.head.fc.weight)
    graph, runs = files(model, space, static=not varies and len(space) == 2)
    batches = (1, 3) if varies or len(space) == 3 else (1,)
    for batch in batches:
        assert assert_same(graph, runs, images(batch, 3, *space))["scores"].shape == (batch, 5)
    if varies:
        larger = [n + m for n, m in zip(space, model.backbone.divisor, strict=True)]
        assert_same(graph, runs, images(2, 3, *larger))


def test_what_cannot_be_exported_is_said(files: Files) -> None:
    torch.manual_seed(0)
    model = create_model("MiT", "segmentation", num_classes=3, **TINY).eval()
    model.head.export = lambda outputs, space: {"logits": outputs if outputs.sum() > 0 else -outputs}
    with pytest.raises(ConfigError, match=r"MiT with SegFormerHead has no graph.*docs/export\.md"):
        files(model, (64, 64), static=True)


@pytest.mark.slow
def test_what_onnx_does_not_have_is_said(files: Files) -> None:
    torch.manual_seed(0)
    model = create_model("MiT", "segmentation", num_classes=3, **TINY).eval()
    model.head.export = lambda outputs, space: {"logits": torch.special.i1e(outputs)}
    with pytest.raises(ConfigError, match="written as ONNX: add --static, or --format pt2"):
        files(model, (64, 64), static=True)
