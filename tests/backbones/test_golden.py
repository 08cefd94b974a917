"""Numbers of the official implementations, on weights that follow from their names alone.

A golden file names a model of ours, what the official release puts before the names of its tensors, and values of
its outputs: 64 of each, evenly spaced in the flattened tensor. A wrong name gives other weights, so it shows.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from densevit.features import Features
from densevit.registry import BACKBONES, HEADS

GOLDEN = Path(__file__).parents[1] / "golden"
ORACLE = Path(__file__).parents[3] / "shared" / "oracle"
MODELS = sorted(path.stem for path in GOLDEN.glob("*.json"))
TOLERANCE = 1e-5


class Network(nn.Module):
    """A backbone and, where the golden file has one, a head."""

    def __init__(self, golden: dict[str, Any]) -> None:
        super().__init__()
        self.backbone = BACKBONES.build({"type": golden["model"]})
        self.head = HEADS.build(golden["head"], {"specs": self.backbone.specs}) if "head" in golden else None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features: Features = self.backbone(x)
        outputs = {f"map {i}": m for i, m in enumerate(features.maps)}
        if self.head is not None:
            outputs["logits"] = self.head(features)
        return outputs


def weight(key: str, shape: tuple[int, ...], recipe: str) -> Tensor:
    """Return the tensor that the official model held under ``key`` when its outputs were recorded."""
    values = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if (key.endswith("weight") and len(shape) == 1) or key.endswith("running_var"):
        values = 1 + 0.01 * values  # of norms
    elif recipe == "B" and key.endswith("weight"):
        values = values.astype(np.float32) / np.sqrt(np.prod(shape[1:]))
    else:
        values = values.astype(np.float32) * np.float32(0.02)
    return torch.from_numpy(np.asarray(values, np.float32))


def build(golden: dict[str, Any], recipe: str) -> Network:
    network = Network(golden).eval()
    state = network.state_dict()
    for name, value in state.items():
        part, _, key = name.partition(".")
        if value.is_floating_point():
            state[name] = weight(golden["prefixes"][part] + key, tuple(value.shape), recipe)
    network.load_state_dict(state)
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


def noise(shape: list[int]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("name", MODELS)
def test_numbers_equal_the_official_implementation(name: str) -> None:
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    for run, content in golden["runs"].items():
        network = build(golden, recipe=run.rpartition("/")[2])
        with torch.no_grad():
            errors = worst(network(noise(content["input"])), content["outputs"])
        assert max(errors.values()) < TOLERANCE, (run, errors)


@pytest.mark.parametrize("name", MODELS)
def test_all_recorded_runs_equal_the_official_implementation(name: str) -> None:
    path = ORACLE / "golden" / f"{name}.json"
    if not path.exists():
        pytest.skip("the complete recordings are not beside the repository")
    golden, recorded = json.loads((GOLDEN / f"{name}.json").read_text()), json.loads(path.read_text())
    names = {"seg_logits_quarter": "logits", **{f"feat.{i}": f"map {i}" for i in range(4)}}
    for run, content in recorded["runs"].items():
        network = build(golden, recipe=run.rpartition("/")[2])
        expected = {names[key.removeprefix("out.")]: value for key, value in content["outputs"].items()}
        with torch.no_grad():
            errors = worst(network(noise(content["input_shapes"][0])), expected)
        assert max(errors.values()) < TOLERANCE, (run, errors)
