"""Detectors load checkpoints of mmdetection and detectron2. `test_detection_golden.py` loads all of mmdetection's."""

from typing import Any

import pytest
import torch
from torch import Tensor

from densevit.model import DenseModel
from densevit.registry import MODELS
from densevit.weights import load_weights

MIT = {"type": "MiT", "dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "num_heads": (1, 2, 3, 4)}
SMALL = {"num_classes": 3, "rpn_channels": 8, "fc_channels": 16, "mask_channels": 8}
# Of detectron2 and ours; {} is the number of a stage where there are several.
HEADS = {
    "proposal_generator.rpn_head.objectness_logits": "rpn_head.rpn_cls",
    "proposal_generator.rpn_head.anchor_deltas": "rpn_head.rpn_reg",
    "roi_heads.box_predictor{}.cls_score": "roi_head.bbox_head{}.fc_cls",
    "roi_heads.box_predictor{}.bbox_pred": "roi_head.bbox_head{}.fc_reg",
    "roi_heads.box_head{}.fc1": "roi_head.bbox_head{}.shared_fcs.0",
    "roi_heads.mask_head.deconv": "roi_head.mask_head.upsample",
    "roi_heads.mask_head.predictor": "roi_head.mask_head.conv_logits",
}
MASK_RCNN = {
    "proposal_generator.rpn_head.conv": "rpn_head.rpn_conv",
    "roi_heads.box_head.fc2": "roi_head.bbox_head.shared_fcs.1",
    **{f"roi_heads.mask_head.mask_fcn{i + 1}": f"roi_head.mask_head.convs.{i}.conv" for i in range(4)},
}
CASCADE = {
    **{f"proposal_generator.rpn_head.conv.conv{i}": f"rpn_head.rpn_conv.{i}.conv" for i in range(2)},
    **{f"roi_heads.box_head{{}}.conv{i + 1}": f"roi_head.bbox_head{{}}.shared_convs.{i}.conv" for i in range(4)},
    **{f"roi_heads.box_head{{}}.conv{i + 1}.norm": f"roi_head.bbox_head{{}}.shared_convs.{i}.bn" for i in range(4)},
    **{f"roi_heads.mask_head.mask_fcn{i + 1}": f"roi_head.mask_head.convs.{i}.conv" for i in range(4)},
    **{f"roi_heads.mask_head.mask_fcn{i + 1}.norm": f"roi_head.mask_head.convs.{i}.bn" for i in range(4)},
}


def build(head: dict[str, Any], seed: int) -> DenseModel:
    torch.manual_seed(seed)
    neck = {"type": "FPN", "out_channels": 8, "num_outs": 5}
    model = MODELS.build({"type": "DenseModel", "backbone": MIT, "neck": neck, "head": head})
    for value in model.state_dict().values():
        if value.is_floating_point():
            torch.nn.init.normal_(value)
    return model


def of_detectron2(state: dict[str, Tensor], names: dict[str, str], stages: list[str]) -> dict[str, Tensor]:
    """Rename our tensors, none of which may be left."""
    ours = {**HEADS, **names}
    ours = {theirs.format(stage): name.format(stage) for theirs, name in ours.items() for stage in stages}
    renamed = {}
    for theirs, name in ours.items():
        for key in [k for k in state if k.startswith(f"head.{name}.")]:
            renamed[f"{theirs}.{key.removeprefix(f'head.{name}.')}"] = state.pop(key)
    for i in range(4):
        for theirs, name in (("lateral", "lateral_convs"), ("output", "fpn_convs")):
            for kind in ("weight", "bias"):
                renamed[f"backbone.fpn_{theirs}{i + 2}.{kind}"] = state.pop(f"neck.{name}.{i}.conv.{kind}")
    for key in list(state):
        if key.startswith("backbone."):
            renamed[key.replace("backbone.", "backbone.bottom_up.")] = state.pop(key)
    assert [key for key in state if not key.startswith("data_preprocessor.")] == []
    return renamed


def assert_loads(model: DenseModel, state: dict[str, Tensor], source: DenseModel) -> None:
    report = load_weights(model, {"model": state}, verbose=False)
    assert report.missing == report.unexpected == []
    assert report.skipped == report.resized == {}
    for key, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


@pytest.mark.parametrize(
    ("head", "names", "stages"),
    [("MaskRCNNHead", MASK_RCNN, [""]), ("CascadeMaskRCNNHead", CASCADE, [".0", ".1", ".2"])],
)
def test_a_checkpoint_of_detectron2_is_loaded_whole(head: str, names: dict[str, str], stages: list[str]) -> None:
    source, model = (build({"type": head, **SMALL}, seed) for seed in (0, 1))
    assert_loads(model, of_detectron2(source.state_dict(), names, stages), source)


@pytest.mark.parametrize(
    ("head", "prefix"),
    [
        ({"type": "RetinaHead", "num_classes": 3, "channels": 8}, "bbox_head."),
        ({"type": "MaskRCNNHead", **SMALL}, ""),
        ({"type": "CascadeMaskRCNNHead", **SMALL}, ""),
    ],
)
def test_checkpoints_of_mmdetection_and_ours_are_loaded_whole(head: dict[str, Any], prefix: str) -> None:
    source = build(head, 0)
    state = source.state_dict()
    assert_loads(build(head, 1), dict(state), source)
    theirs = {prefix + k.removeprefix("head.") if k.startswith("head.") else k: v for k, v in state.items()}
    assert_loads(build(head, 1), theirs, source)


def test_another_number_of_classes_leaves_only_the_last_layers() -> None:
    source, model = (
        build({"type": "MaskRCNNHead", **SMALL}, 0),
        build({"type": "MaskRCNNHead", **SMALL, "num_classes": 5}, 1),
    )
    report = load_weights(model, source.state_dict(), verbose=False)
    layers = ("bbox_head.fc_cls", "bbox_head.fc_reg", "mask_head.conv_logits")
    assert set(report.skipped) == {f"head.roi_head.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert report.missing == report.unexpected == []
