"""ConvMixer: sizes, names, initialisation, timm's numbers, official files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from densevit.api import create_model
from densevit.backbones import ConvMixer
from densevit.errors import ConfigError
from densevit.registry import BACKBONES
from densevit.weights import load_weights

KEYS = Path(__file__).parents[3] / "shared" / "oracle" / "keys"
# Width, parameters, and multiply-adds in G for an image of 224 x 224, of the official models with their classifier.
SIZES = {
    "convmixer_1536_20": (1536, 51_625_960, 51.0992),
    "convmixer_768_32": (768, 21_110_248, 20.6769),
    "convmixer_1024_20_ks9_p14": (1024, 24_383_464, 5.9485),
}
# Standard deviations right after official construction of the model for CIFAR-10.
INIT = {
    "patch_embed.0.weight": 0.165821,
    "patch_embed.0.bias": 0.173445,
    "blocks.0.0.fn.0.weight": 0.115074,
    "blocks.0.0.fn.0.bias": 0.11514,
    "blocks.0.1.weight": 0.036069,
    "blocks.0.1.bias": 0.035397,
}


def tiny(**options: Any) -> ConvMixer:
    torch.manual_seed(0)
    return ConvMixer(**{"dim": 32, "depth": 4, "kernel_size": 5, "patch_size": 4, **options})


def official(state: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Return the tensors of a classifier of ours under their official names."""
    starts = {"backbone.patch_embed.": "", "head.fc.": f"{depth + 5}."}
    starts |= {f"backbone.blocks.{i}.": f"{i + 3}." for i in range(depth)}
    renamed = {}
    for key, value in state.items():
        start = next(s for s in starts if key.startswith(s))
        renamed[starts[start] + key.removeprefix(start)] = value
    return renamed


@pytest.mark.parametrize("name", SIZES)
def test_variants_have_the_official_size_and_cost(name: str) -> None:
    with torch.device("meta"):
        backbone, x = BACKBONES.build({"type": name, "token": True}).eval(), torch.empty(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter:
        backbone(x)
    dim, params, macs = SIZES[name]
    assert sum(p.numel() for p in backbone.parameters()) == params - 1000 * (dim + 1)
    assert counter.get_total_flops() / 2e9 == pytest.approx(macs - 1000 * dim / 1e9, abs=1e-4)


def test_the_variant_for_cifar_is_for_its_images() -> None:
    backbone = BACKBONES.build({"type": "convmixer_256_8", "token": True})
    assert backbone.img_size == 32
    assert sum(p.numel() for p in backbone.parameters()) == 594_186 - 10 * 257


@pytest.mark.parametrize("path", sorted(KEYS.glob("convmixer_*.json")) or [None], ids=lambda p: p and p.stem)
def test_official_names_and_shapes_are_translated(path: Path | None) -> None:
    if path is None:
        pytest.skip("the lists of official names are not beside the repository")
    with torch.device("meta"):
        backbone = BACKBONES.build({"type": path.stem.removesuffix("_cifar_k5p2"), "token": True})
        names = {k: torch.empty(s) for k, s in json.loads(path.read_text()).items()}
    found = {k: v.shape for k, v in backbone.translate(names).items()}
    assert {k for k in found if k.startswith("head.")} == {"head.weight", "head.bias"}
    assert {k: s for k, s in found.items() if not k.startswith("head.")} == {
        k: v.shape for k, v in backbone.state_dict().items()
    }


def test_an_official_file_is_loaded_with_its_classifier() -> None:
    options = {"dim": 16, "depth": 12}
    source, model = (create_model("convmixer_256_8", num_classes=5, **options) for _ in range(2))
    state = official(source.state_dict(), depth=12)
    assert {"0.weight", "2.running_var", "14.0.fn.2.bias", "14.3.weight", "17.bias"} <= state.keys()
    report = load_weights(model, state, verbose=False)
    assert report.missing == report.unexpected == []
    assert report.skipped == {}
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in model.state_dict().items())


def test_initialisation_is_the_official_one() -> None:
    torch.manual_seed(0)
    state = BACKBONES.build({"type": "convmixer_256_8"}).state_dict()
    for key, std in INIT.items():
        assert state[key].std().item() == pytest.approx(std, rel=0.1), key


def test_norms_follow_the_activation_and_only_the_depthwise_part_is_residual() -> None:
    backbone = tiny(drop_path=0.3).eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.eps == 1e-5
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    x = torch.randn(2, 32, 6, 7)
    residual, pointwise, _, norm = backbone.blocks[3]
    depthwise, _, inner = residual.fn
    y = x + inner(nn.functional.gelu(depthwise(x)))
    y = norm(nn.functional.gelu(nn.functional.conv2d(y, pointwise.weight, pointwise.bias)))
    torch.testing.assert_close(backbone.blocks[3](x), y)
    assert [block[0].drop_path.p for block in backbone.blocks] == pytest.approx([0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_outputs_gradients_and_statistics_are_timm_s(activation: str) -> None:
    timm = pytest.importorskip("timm.models.convmixer")
    torch.manual_seed(0)
    layer = {"gelu": nn.GELU, "relu": nn.ReLU}[activation]
    theirs = timm.ConvMixer(32, 4, kernel_size=5, patch_size=4, num_classes=0, act_layer=layer).double()
    for key, value in theirs.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if key.endswith("running_var") else value.normal_(std=0.3)
    ours = tiny(token=True, activation=activation).double()
    report = load_weights(ours, theirs.state_dict(), verbose=False)
    assert report.missing == report.unexpected == []
    assert report.skipped == {}
    x = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x).token, theirs.eval()(x))
    found, expected = ours.train()(x).token, theirs.train()(x)
    weights = torch.randn_like(expected)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(found, expected)
    gradients = ConvMixer.translate({n: p.grad for n, p in theirs.named_parameters()})
    torch.testing.assert_close({n: p.grad for n, p in ours.named_parameters()}, gradients)
    statistics = ConvMixer.translate(dict(theirs.named_buffers()))
    torch.testing.assert_close(dict(ours.named_buffers()), statistics)


def test_maps_are_taken_after_each_quarter_and_the_token_is_the_mean_of_the_last() -> None:
    backbone = tiny(depth=8, token=True, out_indices=(0, 1, 2, 3)).eval()
    outputs: list[Tensor] = []
    for i in (1, 3, 5, 7):
        backbone.blocks[i].register_forward_hook(lambda _, __, output: outputs.append(output))
    features = backbone(torch.randn(2, 3, 32, 32))
    assert all(torch.equal(a, b) for a, b in zip(features.maps, outputs, strict=True))
    torch.testing.assert_close(features.token, outputs[-1].mean(dim=(2, 3)))


def test_maps_are_channels_last_from_the_patches_on() -> None:
    backbone, outputs = tiny().eval(), []
    for module in backbone.modules():
        module.register_forward_hook(lambda _, __, output: outputs.append(output))
    backbone(torch.randn(2, 3, 32, 48))
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in outputs if isinstance(m, Tensor))
    assert len(outputs) > 30


def test_images_are_padded_by_zeros_to_whole_patches() -> None:
    backbone, x = tiny().eval(), torch.randn(1, 3, 30, 33)
    torch.testing.assert_close(backbone(x).maps[0], backbone(nn.functional.pad(x, (0, 3, 0, 2))).maps[0])


def test_frozen_blocks_and_patches_neither_learn_nor_count() -> None:
    backbone = tiny(frozen_stages=2).train()
    before = backbone.patch_embed[2].running_mean.clone()
    backbone(torch.randn(2, 3, 32, 32)).maps[0][:, :5].sum().backward()
    frozen = {".".join(n.split(".")[:2]) for n, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == {"patch_embed.0", "patch_embed.2", "blocks.0", "blocks.1"}
    assert torch.equal(backbone.patch_embed[2].running_mean, before)
    assert backbone.blocks[2][3].running_mean.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"activation": "silu"}, "relu"), ({"frozen_stages": 5}, "frozen_stages"), ({"out_indices": (4,)}, "out_indices")],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**options)
