"""Classifiers of clips load checkpoints of mmaction2, whose names are given here."""

import re

import pytest
import torch
from torch import Tensor, nn

from densevit.api import create_model
from densevit.model import DenseModel
from densevit.weights import load_weights

TIMESFORMER = {"dim": 32, "depth": 2, "num_heads": 4, "hidden": 64, "img_size": 32, "num_frames": 4}
MVIT = {"dims": (16, 32, 64, 128), "depths": (1, 1, 1, 1), "img_size": 64, "num_frames": 8}
# Of our names and theirs.
COMMON = {
    r"^head\.fc\.": "cls_head.fc_cls.",
    r"^backbone\.patch_embed\.proj\.": "backbone.patch_embed.projection.",
}
BLOCKS = {
    r"^backbone\.blocks\.": "backbone.transformer_layers.layers.",
    r"\.mlp\.fc1\.": ".ffns.0.layers.0.0.",
    r"\.mlp\.fc2\.": ".ffns.0.layers.1.",
    r"attn\.qkv\.": "attn.in_proj_",
    r"attn\.proj\.": "attn.out_proj.",
}
DIVIDED = {
    r"\.temporal_norm1\.": ".attentions.0.norm.",
    r"\.temporal_attn\.": ".attentions.0.attn.",
    r"\.temporal_fc\.": ".attentions.0.temporal_fc.",
    r"\.norm1\.": ".attentions.1.norm.",
    r"\.attn\.(?=in|out)(?<!0\.attn\.)": ".attentions.1.attn.",
    r"\.norm2\.": ".ffns.0.norm.",
}
WHOLE = {r"\.norm1\.": ".norms.0.", r"\.norm2\.": ".norms.1.", r"\.attn\.(?=in|out)": ".attentions.0.attn."}
NAMES = {
    "divided": {**COMMON, **BLOCKS, **DIVIDED},
    "joint": {**COMMON, **BLOCKS, **WHOLE},
    "space": {**COMMON, **BLOCKS, **WHOLE},
    "mvit": {**COMMON, r"^backbone\.norm\.": "backbone.norm3."},
}


def build(kind: str, seed: int) -> DenseModel:
    torch.manual_seed(seed)
    if kind == "mvit":
        model = create_model("VideoMViT", "video", num_classes=5, **MVIT)
    else:
        model = create_model("TimeSformer", "video", num_classes=5, attention=kind, **TIMESFORMER)
    for p in model.parameters():
        nn.init.normal_(p)
    return model


def of_mmaction2(state: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    renamed = {}
    for key, value in state.items():
        for ours, theirs in NAMES[kind].items():
            key = re.sub(ours, theirs, key)
        renamed[key] = value
    return renamed


@pytest.mark.parametrize("kind", NAMES)
def test_a_checkpoint_of_mmaction2_is_loaded_whole(kind: str) -> None:
    source, model = build(kind, 0), build(kind, 1)
    theirs = of_mmaction2(source.state_dict(), kind)
    kept = set(theirs) & set(source.state_dict())
    assert not any(part in key for key in kept for part in (".mlp.fc1.", ".temporal") if kind != "mvit")
    report = load_weights(model, {"state_dict": theirs}, verbose=False)
    assert report.missing == report.unexpected == report.completed == []
    assert report.skipped == report.resized == {}
    for key, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_names_of_a_divided_block_are_those_of_mmaction2() -> None:
    block = "backbone.transformer_layers.layers.1."
    names = {
        key.removeprefix(block) for key in of_mmaction2(build("divided", 0).state_dict(), "divided") if block in key
    }
    layers = ["attentions.0.norm", "attentions.1.norm", "ffns.0.norm", "attentions.0.temporal_fc"]
    layers += ["ffns.0.layers.0.0", "ffns.0.layers.1", "attentions.0.attn.out_proj", "attentions.1.attn.out_proj"]
    expected = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert names == expected | {f"attentions.{i}.attn.in_proj_{kind}" for i in (0, 1) for kind in ("weight", "bias")}
