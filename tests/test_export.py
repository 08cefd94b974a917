"""What is exported, before any file is written: sizes, a description, folded batch norms, the comparison."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

from densevit.api import create_model
from densevit.errors import ConfigError
from densevit.export.comparison import difference
from densevit.export.description import describe
from densevit.export.graph import Graph, fold_batch_norms
from densevit.export.sizes import input_size, usual_space
from densevit.features import Features
from densevit.model import DenseModel
from densevit.registry import MODELS

TINY = {"dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}


def segmenter(**options: Any) -> DenseModel:
    torch.manual_seed(0)
    return create_model("MiT", "segmentation", num_classes=3, **{**TINY, **options}).eval()


@pytest.mark.parametrize("name", ["mobilevit_xxs", "cmt_ti"])
def test_folding_batch_norms_changes_no_output(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3).eval()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.running_mean, -0.2, 0.2)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.uniform_(norm.bias, -0.2, 0.2)
    graph, x = Graph(model), 255 * torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = graph(x)["scores"]
        count = fold_batch_norms(graph, x)
        torch.testing.assert_close(graph(x)["scores"], expected, rtol=1e-4, atol=1e-6)
    left = [m for m in graph.modules() if isinstance(m, nn.BatchNorm2d)]
    assert 0 < count == len(norms) - len(left)
    assert len(norms) == sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()), "the model itself must stay"


class Parts(nn.Module):
    """Batch norms that must stay: after a layer that runs twice, and after something else than a convolution.

    The last one gets the very tensor that a convolution made, but not as that made it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norms[1](self.conv(self.norms[0](self.conv(x))))
        return self.norms[3](self.last(self.norms[2](x.relu())).relu_())


def test_only_a_convolution_that_runs_once_is_folded() -> None:
    parts, x = Parts().eval(), torch.rand(1, 3, 4, 4)
    assert fold_batch_norms(parts, x) == 0
    assert sum(isinstance(m, nn.BatchNorm2d) for m in parts.modules()) == 4


def test_sizes_vary_by_multiples_from_where_the_coarsest_map_has_two_cells() -> None:
    size = input_size(segmenter(), (96, 128), static=False)
    assert size.shape(3) == ["batch", 3, "height", "width"]
    assert (size.multiples, size.least) == ((32, 32), (64, 64))
    assert size.tried() == [(2, (96, 128)), (3, (128, 160)), (1, (64, 64))]
    detector = create_model("MiT", "detection", num_classes=2, head={"channels": 8, "num_convs": 1}, **TINY)
    assert input_size(detector, (160, 160), static=False).least == (160, 160)  # its coarsest stride is 128


def test_a_single_size_may_be_any() -> None:
    size = input_size(segmenter(), (33, 47), static=True)
    assert size.shape(3) == [1, 3, 33, 47]
    assert size.dims() == {}
    assert size.tried() == [(1, (33, 47))]


@pytest.mark.parametrize(
    ("space", "message"),
    [((96, 100), "multiples of 32, 64 or more"), ((32, 96), "add --static"), ((8, 96, 96), "--size is HEIGHT WIDTH")],
)
def test_a_size_that_cannot_be_is_refused(space: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        input_size(segmenter(), space, static=False)


def test_clips_and_volumes_keep_their_size() -> None:
    options = {"dim": 16, "depth": 1, "num_heads": 2, "hidden": 32, "img_size": 32, "num_frames": 2}
    model = create_model("TimeSformer", "video", num_classes=2, **options)
    assert input_size(model, (2, 32, 32), static=False).shape(3) == ["batch", 3, 2, 32, 32]


def config(model: dict[str, Any] | None = None, **dataset: Any) -> Config:
    return Config({"model": model or {}, "test_dataloader": {"dataset": {"type": "SegDataset", **dataset}}})


def test_the_usual_size_is_that_of_the_test() -> None:
    image, clip = segmenter(), create_model("timesformer_base", "video", num_classes=2, depth=1, dim=16, num_heads=2)
    crop = [{"type": "Resize", "size": 100}, {"type": "CenterCrop", "size": 96}]
    assert usual_space(config(), image) == (224, 224)
    assert usual_space(config(transforms=crop), image) == (96, 96)
    assert usual_space(config(transforms=crop, sampling={"frames": 4}), clip) == (4, 96, 96)
    changes = [{"type": "FrameDifference", "frames": 4}, *crop]
    assert usual_space(config(transforms=changes, sampling={"frames": 4}), clip) == (3, 96, 96)
    window = {"inference": {"type": "SlidingVolume", "window": (16, 32, 32)}}
    assert usual_space(config(window), clip) == (16, 32, 32)


def test_the_description_says_all_that_is_needed_and_no_path() -> None:
    model = segmenter()
    cfg = config(data_root="a/secret", transforms=[{"type": "AlignedResize", "scale": (80, 64), "divisor": 32}])
    named = {"classes": ("a", "b", "c"), "palette": [(0, 0, 0)] * 3}
    about = describe(cfg, model, input_size(model, (64, 96), static=False), ["logits"], named)
    assert about["input"]["shape"] == ["batch", 3, "height", "width"]
    assert about["input"]["values"] == "RGB, 0 to 255"
    assert about["input"]["multiples"] == [32, 32]
    assert about["preparation"] == {"transforms": [{"type": "AlignedResize", "scale": [80, 64], "divisor": 32}]}
    assert (about["classes"], about["outputs"], about["head"]) == (["a", "b", "c"], ["logits"], "SegFormerHead")
    assert "secret" not in json.dumps(about)


def test_a_graph_takes_pixels_and_leaves_the_model_as_it_was() -> None:
    model = segmenter()
    model.precision, model.inference = "bf16", MODELS.build({"type": "SlideInference"})
    x = torch.randint(0, 256, (2, 3, 64, 64)).float()
    with torch.no_grad():
        found = Graph(model)(x)["logits"]
        expected = model.parts(model.data_preprocessor.normalise(x))
    torch.testing.assert_close(found, expected)
    assert model.precision == "bf16"
    assert all(p.requires_grad for p in model.parameters())


def test_a_head_that_does_not_say_how_is_refused() -> None:
    from densevit.features import Head

    class Mute(Head):
        def forward(self, features: Features) -> Any: ...
        def loss(self, outputs: Any, samples: Any) -> Any: ...
        def predict(self, outputs: Any, metas: Any) -> Any: ...

    with pytest.raises(ConfigError, match="Mute cannot be exported: give it a method export"):
        Mute().export(None, (32, 32))


def objects(*scores: float, shift: float = 0.0) -> dict[str, np.ndarray]:
    """Return the objects of one image, far from each other."""
    n, places = len(scores), 4
    boxes = np.zeros((1, places, 4), np.float32)
    boxes[0, :n] = np.arange(n)[:, None] * 40 + np.array([0, 0, 30, 30]) + shift
    values = np.zeros((1, places), np.float32)
    values[0, :n] = scores
    return {"count": np.array([n]), "boxes": boxes, "scores": values, "labels": np.zeros((1, places), np.int64)}


def test_the_largest_relative_difference_is_found() -> None:
    one = {"logits": np.array([2.0, -4.0])}
    assert difference(one, {"logits": np.array([2.0, -4.001])}) == pytest.approx((0.00025, 0))
    assert difference(one, {"logits": np.array([2.0, float("nan")])})[0] == float("inf")
    assert difference(one, {"logits": np.zeros(3)})[0] == float("inf")


def test_objects_are_compared_whatever_their_order() -> None:
    one = objects(0.9, 0.8)
    swapped = {name: value[:, [1, 0, 2, 3]] if name != "count" else value for name, value in one.items()}
    assert difference(one, swapped) == (0, 0)
    assert difference(objects(), objects()) == (0, 0)


def test_objects_that_only_one_has_are_counted() -> None:
    assert difference(objects(0.9, 0.8), objects(0.9)) == (0, pytest.approx(1 / 3))
    assert difference(objects(0.9), objects(0.9, shift=5)) == (0, 1)
    assert difference(objects(0.9), objects()) == (0, 1)
