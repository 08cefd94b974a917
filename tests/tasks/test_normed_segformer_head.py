"""NormedSegFormerHead: against what mmsegmentation describes, and its whole checkpoints of SegFormer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor
from torch.nn import functional as F

from densevit.features import Features, FeatureSpec, expected_shape
from densevit.model import DenseModel
from densevit.registry import MODELS
from densevit.structures import Meta, Sample, SegTarget
from densevit.tasks.segmentation import NormedSegFormerHead
from densevit.weights import load_weights

SPECS = tuple(FeatureSpec(channels, (s, s)) for channels, s in ((4, 4), (6, 8), (8, 16), (10, 32)))
MIT = {"type": "MiT", "dims": (8, 16, 24, 32), "depths": (1, 2, 1, 1), "num_heads": (1, 2, 3, 4)}


def randomise(module: Any) -> Any:
    for key, value in module.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if key.endswith("running_var") else value.normal_(std=0.3)
    return module


def features(size: tuple[int, int]) -> Features:
    torch.manual_seed(1)
    return Features(tuple(torch.randn(expected_shape(s, 2, size), dtype=torch.float64) for s in SPECS))


def described(made: NormedSegFormerHead, x: Features) -> Tensor:
    """Compute what mmsegmentation does, from the weights under its names: resize, concatenate, fuse."""
    state, training = made.state_dict(), made.training

    def block(name: str, y: Tensor) -> Tensor:
        y = F.conv2d(y, state[f"{name}.conv.weight"])
        mean, var = state[f"{name}.bn.running_mean"].clone(), state[f"{name}.bn.running_var"].clone()
        return F.batch_norm(y, mean, var, state[f"{name}.bn.weight"], state[f"{name}.bn.bias"], training).relu()

    levels = [block(f"convs.{i}", y) for i, y in enumerate(x.maps)]
    levels = [F.interpolate(y, x.maps[0].shape[2:], mode="bilinear", align_corners=False) for y in levels]
    fused = block("fusion_conv", torch.cat(levels, dim=1))
    return F.conv2d(fused, state["conv_seg.weight"], state["conv_seg.bias"])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (97, 130)])
def test_logits_are_those_of_the_description(training: bool, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    made = randomise(NormedSegFormerHead(SPECS, 5, channels=6, dropout=0).double()).train(training)
    expected = described(made, features(size))
    torch.testing.assert_close(made(features(size)), expected)


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    made = NormedSegFormerHead(SPECS, 5, channels=6).double()
    masks = torch.randint(5, (2, 64, 96))
    samples = [Sample(torch.empty(0), SegTarget(mask), Meta("", (64, 96), (64, 96))) for mask in masks]
    made.loss(made(features((64, 96))), samples)["loss_seg"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.parameters())


def build(seed: int) -> DenseModel:
    torch.manual_seed(seed)
    head = {"type": "NormedSegFormerHead", "num_classes": 9, "channels": 8}
    return randomise(MODELS.build({"type": "DenseModel", "backbone": MIT, "head": head}))


def of_mmsegmentation(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename our tensors as mmsegmentation 1.x does; its keys, values and queries are one layer."""
    parts = {
        "attn.proj": "attn.attn.out_proj",
        "mlp.fc1": "ffn.layers.0",
        "mlp.dwconv.dwconv": "ffn.layers.1",
        "mlp.fc2": "ffn.layers.4",
    }
    renamed = {}
    for key, value in state.items():
        if key.startswith("head."):
            renamed[key.replace("head.", "decode_head.", 1)] = value
            continue
        stage = int(key.removeprefix("backbone.").partition(".")[0][-1]) - 1
        kind, rest = key.removeprefix("backbone.").partition(".")[::2]
        part = {"patch_embed": "0", "block": "1", "norm": "2"}[kind[:-1]]
        for ours, theirs in parts.items():
            rest = rest.replace(ours, theirs)
        if part == "0":
            rest = rest.replace("proj.", "projection.")
        if ".fc" in key and key.endswith("weight"):
            value = value[:, :, None, None]
        if ".attn.q." in key:
            kv = state[key.replace(".attn.q.", ".attn.kv.")]
            renamed[f"backbone.layers.{stage}.1.{rest.replace('attn.q.', 'attn.attn.in_proj_')}"] = torch.cat(
                [value, kv]
            )
        elif ".attn.kv." not in key:
            renamed[f"backbone.layers.{stage}.{part}.{rest}"] = value
    return renamed


def test_a_checkpoint_that_mmengine_wrote_is_loaded_whole(tmp_path: Path) -> None:
    source, model = build(0), build(1)
    state = {k: v for k, v in source.state_dict().items() if not k.startswith("data_preprocessor.")}
    content = {
        "meta": {"epoch": 0, "dataset_meta": {"classes": ("a", "b")}, "mmengine_version": "0.10.7"},
        "state_dict": of_mmsegmentation(state),
        "message_hub": {"log_scalars": {"train/loss": HistoryBuffer([1.5, 1.0], [1, 1])}},
    }
    torch.save(content, tmp_path / "iter_160000.pth")
    report = load_weights(model, tmp_path / "iter_160000.pth")
    assert report.missing == report.unexpected == []
    assert report.skipped == report.resized == {}
    for key, value in state.items():
        assert torch.equal(model.state_dict()[key], value), key


def test_compiles_and_exports() -> None:
    made, maps = NormedSegFormerHead(SPECS, 5, channels=6).double().eval(), features((64, 96)).maps
    expected = made(Features(maps))
    compiled = torch.compile(made, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(Features(maps)), expected)
    program = torch.export.export(made, (Features(maps),))
    torch.testing.assert_close(program.module()(Features(maps)), expected)
