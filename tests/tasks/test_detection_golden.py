"""RetinaNet and Mask R-CNN on ResNet-50 equal mmdetection's, on weights that follow from their official names alone.

What was recorded of an output is every fourth of 64 values, evenly spaced in the flattened tensor.
"""

import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from densevit.model import DenseModel
from densevit.registry import MODELS
from densevit.weights import load_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "detection"
RECORDED = Path(__file__).parents[3] / "shared" / "oracle"
TOLERANCE = 1e-5
SAMPLES, KEPT_OF = 64, 4
CONFIGS: dict[str, dict[str, Any]] = {
    "mmdet_retinanet_r50": {
        "neck": {"type": "FPN", "start_level": 1, "num_outs": 5, "extra": "on_input"},
        "head": {"type": "RetinaHead", "num_classes": 80},
    },
    "mmdet_mask_rcnn_r50": {
        "neck": {"type": "FPN", "num_outs": 5},
        "head": {"type": "MaskRCNNHead", "num_classes": 80},
    },
}
PARAMETERS = {"mmdet_retinanet_r50": 37_968_692, "mmdet_mask_rcnn_r50": 44_396_336}


def build(name: str) -> DenseModel:
    pytest.importorskip("timm")
    backbone = {"type": "timm", "name": "resnet50"}
    return MODELS.build({"type": "DenseModel", "backbone": backbone, "precision": "fp32", **CONFIGS[name]}).eval()


def official(name: str, model: str) -> str:
    """Return what mmdetection calls one of our tensors."""
    head = "bbox_head." if model == "mmdet_retinanet_r50" else ""
    return re.sub(r"^head\.", head, name).replace("backbone.model.", "backbone.")


def weight(key: str, shape: tuple[int, ...], recipe: str) -> Tensor:
    """Return the tensor that the official model held under ``key`` when its outputs were recorded."""
    values = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if (key.endswith("weight") and len(shape) == 1) or key.endswith("running_var"):
        values = 1 + 0.01 * values
    elif recipe == "B" and key.endswith("weight"):
        values = values.astype(np.float32) / np.sqrt(np.prod(shape[1:]))
    else:
        values = values.astype(np.float32) * np.float32(0.02)
    return torch.from_numpy(values.astype(np.float32))


def load(model: DenseModel, shapes: dict[str, tuple[int, ...]], recipe: str) -> None:
    report = load_weights(model, {key: weight(key, shape, recipe) for key, shape in shapes.items()}, verbose=False)
    assert report.missing == report.unexpected == []
    assert report.skipped == report.resized == {}


def shapes_of(model: DenseModel, name: str) -> dict[str, tuple[int, ...]]:
    state = {key: value for key, value in model.state_dict().items() if value.is_floating_point()}
    return {official(key, name): tuple(value.shape) for key, value in state.items()}


@torch.no_grad()
def outputs(model: DenseModel, shape: list[int], rois: Tensor | None) -> dict[str, Tensor]:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    maps = model.neck(model.backbone(x).maps, x.shape[2:])
    named = {"fpn": maps}
    out = model.network(x)
    if rois is None:
        named |= {"cls": out.logits, "reg": out.deltas}
        return {f"{key}.{i}": level for key, levels in named.items() for i, level in enumerate(levels)}
    named |= {"rpn_cls": out.dense.logits, "rpn_reg": out.dense.deltas}
    flat = {f"{key}.{i}": level for key, levels in named.items() for i, level in enumerate(levels)}
    head = model.head.roi_head
    boxes = [rois[:, 1:]]
    flat["bbox_roi_feats"], flat["mask_roi_feats"] = (head.pool(out.maps, boxes, size) for size in (7, 14))
    logits, deltas = head.bbox_head(flat["bbox_roi_feats"])
    masks = head.mask_head(flat["mask_roi_feats"])
    return {**flat, "bbox_cls": logits, "bbox_reg": deltas.flatten(1), "mask_logits": masks}


def positions(numel: int) -> np.ndarray:
    return np.linspace(0, numel - 1, SAMPLES).astype(int)


def worst(found: dict[str, Tensor], expected: dict[str, Any], step: int) -> dict[str, float]:
    """Return the largest difference per output, relative to its largest sample."""
    errors = {}
    for name, golden in expected.items():
        assert list(found[name].shape) == golden["shape"], name
        picked = found[name].flatten()[positions(found[name].numel())[::step]]
        samples = torch.tensor(golden["samples"])
        errors[name] = ((picked - samples).abs().max() / samples.abs().max()).item()
    return errors


@pytest.mark.parametrize("name", CONFIGS)
def test_numbers_equal_mmdetection(name: str) -> None:
    golden, model = json.loads((GOLDEN / f"{name}.json").read_text()), build(name)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    rois = torch.tensor(golden["rois"]) if "rois" in golden else None
    load(model, shapes_of(model, name), golden["recipe"])
    errors = worst(outputs(model, golden["input"], rois), golden["outputs"], KEPT_OF)
    assert max(errors.values()) < TOLERANCE, errors


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_all_recorded_runs_equal_mmdetection(name: str) -> None:
    path = RECORDED / "golden" / f"{name}.json"
    if not path.exists():
        pytest.skip("the complete recordings are not beside the repository")
    keys = json.loads((RECORDED / "keys" / f"{name}.json").read_text())
    shapes = {key: tuple(shape) for key, shape in keys.items() if not key.endswith("num_batches_tracked")}
    model = build(name)
    assert shapes == shapes_of(model, name)
    for run, content in json.loads(path.read_text())["runs"].items():
        expected = {key.removeprefix("out."): value for key, value in content["outputs"].items()}
        rois = recorded_rois(expected.pop("roi_rois")) if "roi_rois" in expected else None
        load(model, shapes, run.rpartition("/")[2])
        errors = worst(outputs(model, content["input_shapes"][0], rois), expected, step=1)
        assert max(errors.values()) < TOLERANCE, (run, errors)


def recorded_rois(golden: dict[str, Any]) -> Tensor:
    """Return boxes of which all values are among the samples."""
    rois = torch.zeros(golden["shape"]).flatten()
    rois[positions(rois.numel())] = torch.tensor(golden["samples"])
    return rois.view(golden["shape"])
