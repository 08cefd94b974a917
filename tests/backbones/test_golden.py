"""Numbers of the official implementations, on weights that follow from their names alone.

A golden file names a model of ours, how starts of our names are called in the official release, and values of its
outputs: 64 of each, evenly spaced in the flattened tensor. A wrong name gives other weights, so it shows.
`tests/golden/make.py` writes them.
"""

import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from densevit.features import Features, FeatureSpec
from densevit.registry import BACKBONES, HEADS, NECKS
from densevit.weights import load_weights

GOLDEN = Path(__file__).parents[1] / "golden"
ORACLE = Path(__file__).parents[3] / "shared" / "oracle"
LARGE = ("timesformer", "unetr_conv", "unetr_perceptron")  # 86M weights and more take their time to be drawn
MODELS = [
    pytest.param(path.stem, marks=[pytest.mark.slow] if path.stem.startswith(LARGE) else [])
    for path in sorted(GOLDEN.glob("*.json"))
]
TOLERANCE = 1e-5


class Network(nn.Module):
    """A backbone and, where the golden file has one, a neck or a head."""

    def __init__(self, golden: dict[str, Any]) -> None:
        super().__init__()
        self.backbone = BACKBONES.build(golden["backbone"])
        inputs = {"specs": self.backbone.specs}
        if self.backbone.token_channels:
            inputs["token_channels"] = self.backbone.token_channels
        self.neck = NECKS.build(golden["neck"], {"specs": self.backbone.specs}) if "neck" in golden else None
        if "head" in golden and HEADS.get(golden["head"]["type"]).reads_input:
            image = FeatureSpec(self.backbone.in_channels, (1,) * len(self.backbone.divisor))
            inputs["specs"] = (image, *inputs["specs"])
        self.head = HEADS.build(golden["head"], inputs) if "head" in golden else None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features: Features = self.backbone(x)
        if self.neck is not None:
            features = features._replace(maps=self.neck(features.maps, x.shape[2:]))
        outputs = {f"map {i}": m for i, m in enumerate(features.maps)}
        if self.head is not None:
            if self.head.reads_input:
                features = features._replace(maps=(x, *features.maps))
            outputs["logits"] = self.head(features)
        return outputs


def weight(key: str, shape: tuple[int, ...], recipe: str) -> Tensor:
    """Return the tensor that the official model held under ``key`` when its outputs were recorded."""
    values = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if (key.endswith("weight") and len(shape) == 1) or key.endswith(("running_var", "/scale")):
        values = 1 + 0.01 * values  # of norms
    elif re.search(r"\.gamma\d$|_affine\.alpha$", key):
        values = 0.5 + 0.01 * values  # scales of layers
    elif recipe in "BC" and key.endswith("weight") and len(shape) >= 2:
        gain = 1.6 if recipe == "C" and len(shape) >= 3 else 1
        values = values.astype(np.float32) * (gain / np.sqrt(np.prod(shape[1:])))
    elif recipe in "BC" and key.endswith("/kernel"):  # of JAX; attention's keep heads apart on the side of the outputs
        fan_in = shape[:1] if re.search("/(query|key|value)/", key) else shape[:-1]
        values = values.astype(np.float32) / np.sqrt(np.prod(fan_in))
    else:
        values = values.astype(np.float32) * np.float32(0.02)
    return torch.from_numpy(np.asarray(values, np.float32))


def official(name: str, names: dict[str, str]) -> str:
    """Return the official name of a tensor; the longest start that ``names`` has decides."""
    start = max((s for s in names if name.startswith(s)), key=len)
    return names[start] + name[len(start) :]


def build(golden: dict[str, Any], recipe: str) -> Network:
    """Return the network with weights by the official names of its own tensors, or of those that it is to load."""
    if "keys" in golden:
        return build_from_file(golden, golden["keys"], recipe)
    network = Network(golden).eval()
    state = network.state_dict()
    for name, value in state.items():
        if value.is_floating_point():
            state[name] = weight(official(name, golden["names"]), tuple(value.shape), recipe)
    network.load_state_dict(state)
    return network


def build_from_file(golden: dict[str, Any], keys: dict[str, list[int]], recipe: str) -> Network:
    """Return the network after loading what the official release would have saved."""
    network = Network(golden).eval()
    keys = {
        k.replace("*", str(i)): s for k, s in keys.items() for i in range(network.backbone.depth if "*" in k else 1)
    }
    state = {k: weight(k, tuple(s), recipe) for k, s in keys.items() if not k.endswith("num_batches_tracked")}
    report = load_weights(network, state, verbose=False)
    assert report.missing == []
    assert [*report.resized] == golden.get("adapted", [])  # laid out otherwise officially
    assert report.skipped == {}
    return network


def worst(outputs: dict[str, Tensor], expected: dict[str, Any]) -> dict[str, float]:
    """Return the largest difference per output, relative to its largest sample."""
    errors = {}
    for name, golden in expected.items():
        assert list(outputs[name].shape) == golden["shape"]
        flat, samples = outputs[name].flatten(), torch.tensor(golden["samples"])
        picked = flat[np.linspace(0, len(flat) - 1, len(samples)).astype(int)]
        errors[name] = ((picked - samples).abs().max() / samples.abs().max()).item()
    return errors


def noise(shape: list[int], layout: str | None) -> Tensor:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    return x.movedim(-1, 1) if layout == "NHWC" else x


@pytest.mark.parametrize("name", MODELS)
def test_numbers_equal_the_official_implementation(name: str) -> None:
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    for run, content in golden["runs"].items():
        network = build(golden, recipe=run.rpartition("/")[2])
        with torch.no_grad():
            errors = worst(network(noise(content["input"], golden.get("layout"))), content["outputs"])
        assert max(errors.values()) < TOLERANCE, (run, errors)


@pytest.mark.parametrize("name", MODELS)
def test_all_recorded_runs_equal_the_official_implementation(name: str) -> None:
    path = ORACLE / "golden" / f"{name}.json"
    if not path.exists():
        pytest.skip("the complete recordings are not beside the repository")
    golden, recorded = json.loads((GOLDEN / f"{name}.json").read_text()), json.loads(path.read_text())
    keys = json.loads((ORACLE / "keys" / f"{name}.json").read_text())
    for run, content in recorded["runs"].items():
        network = build_from_file(golden, keys, recipe=run.rpartition("/")[2])
        expected = {ours: content["outputs"][theirs] for ours, theirs in golden["outputs"].items()}
        with torch.no_grad():
            errors = worst(network(noise(content["input_shapes"][0], golden.get("layout"))), expected)
        assert max(errors.values()) < TOLERANCE, (run, errors)
