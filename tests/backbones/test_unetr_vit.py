"""UNETR's ViT: MONAI's numbers and files, sizes, positions at any size, settings."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import UNETR
from torch import Tensor

from densevit.backbones import UNETRViT
from densevit.engine.complexity import complexity
from densevit.errors import CheckpointError, ConfigError
from densevit.features import FeatureSpec
from densevit.model import DenseModel
from densevit.registry import BACKBONES, MODELS
from densevit.weights import load_weights

ORACLE = Path(__file__).parents[3] / "shared" / "oracle"
SIZE = (32, 16, 48)
TINY = {"img_size": SIZE, "dim": 24, "num_heads": 3, "hidden": 32}


def tiny(**options: Any) -> UNETRViT:
    torch.manual_seed(0)
    return UNETRViT(**{**TINY, **options})


def unetr(head: dict[str, Any] | None = None, **backbone: Any) -> DenseModel:
    """Return a UNETR in double precision."""
    head = {"type": "UNETRHead", "num_classes": 3, "feature_size": 4, **(head or {})}
    torch.manual_seed(0)
    model = MODELS.build(
        {"type": "DenseModel", "backbone": {"type": "UNETRViT", **TINY, **backbone}, "head": head, "precision": "fp32"}
    )
    return model.double()


def monai(channels: int = 1, proj_type: str = "conv", **options: Any) -> UNETR:
    """Return MONAI's of the same size."""
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"feature_size": 4, "hidden_size": 24, "mlp_dim": 32, "num_heads": 3}
    return UNETR(channels, 3, SIZE, proj_type=proj_type, **sizes, **options).double()


def assert_close(a: Tensor, b: Tensor, name: str = "") -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11 * b.abs().max().item() + 1e-13, msg=name or None)


@pytest.mark.parametrize(
    ("proj_type", "channels", "options", "head"),
    [
        ("conv", 1, {}, {}),
        ("perceptron", 2, {"qkv_bias": True}, {"norm": "batch", "res_block": False, "conv_block": False}),
    ],
)
def test_outputs_and_gradients_are_those_of_monai(
    proj_type: str, channels: int, options: dict[str, Any], head: dict[str, Any]
) -> None:
    theirs = monai(channels, proj_type, norm_name=head.get("norm", "instance"), **{**options, **_monai(head)})
    ours = unetr(head, in_channels=channels, proj_type=proj_type, **options)
    report = load_weights(ours, theirs.state_dict(), verbose=False)
    assert report.missing == report.unexpected == []
    x = torch.randn(2, channels, *SIZE).double()
    expected, outputs = theirs.train()(x), ours.train()(x)
    assert_close(outputs, expected)
    for y in (outputs, expected):
        y.square().mean().backward()
    found = {name: p.grad for name, p in ours.named_parameters()}
    assert all(grad is not None for grad in found.values())
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    named = unetr(head, in_channels=channels, proj_type=proj_type, **options)
    load_weights(named, gradients, allow_partial=True, verbose=False)  # gradients under our names
    for name, value in named.named_parameters():
        assert_close(found[name], value, name)


def _monai(head: dict[str, Any]) -> dict[str, Any]:
    return {key: head[key] for key in ("res_block", "conv_block") if key in head}


def test_unetr_of_the_paper_has_the_official_size_and_cost() -> None:
    backbone = {"type": "unetr_vit_b16", "proj_type": "perceptron"}
    head = {"type": "UNETRHead", "num_classes": 14}
    with torch.device("meta"):
        model = MODELS.build({"type": "DenseModel", "backbone": backbone, "head": head, "precision": "fp32"})
    total = complexity(model, (96, 96, 96), channels=1)[0]
    assert total.params + 12 * 2 * 768 == 92_802_478  # MONAI's blocks have a norm more that is not used
    assert total.macs / 1e9 == pytest.approx(73.224, abs=1e-3)


@pytest.mark.parametrize("proj_type", ["conv", "perceptron"])
def test_every_name_of_a_file_of_monai_is_ours(proj_type: str) -> None:
    path = ORACLE / "keys" / f"unetr_btcv_{proj_type}.json"
    if not path.exists():
        pytest.skip("the lists of official names are not beside the repository")
    with torch.device("meta"):
        backbone = BACKBONES.build({"type": "unetr_vit_b16"})
        keys = {k: torch.empty(*shape) for k, shape in json.loads(path.read_text()).items() if k.startswith("vit.")}
    found = {key: backbone.adapt(key, value).shape for key, value in backbone.translate(keys).items()}
    assert found == {key: value.shape for key, value in backbone.state_dict().items()}


def test_files_of_old_versions_of_monai_load() -> None:
    state = monai(proj_type="perceptron").state_dict()
    state |= {"vit.patch_embedding.cls_token": torch.zeros(1, 1, 24), "vit.blocks.0.cross_attn.x.weight": torch.ones(2)}
    report = load_weights(unetr(), {"state_dict": {f"module.{k}": v for k, v in state.items()}}, verbose=False)
    assert report.missing == report.unexpected == []


def test_a_vit_of_monai_alone_starts_the_backbone_of_a_model() -> None:
    vit, model = monai().vit.state_dict(), unetr()
    report = load_weights(model, vit, verbose=False)
    assert all(name.startswith("head.") for name in report.missing)
    assert torch.equal(model.backbone.pos_embed, vit["patch_embedding.position_embeddings"])


def test_files_of_both_projections_load_into_either() -> None:
    theirs, ours = monai(2, "perceptron").eval(), tiny(in_channels=2).double().eval()
    load_weights(ours, theirs.vit.state_dict(), verbose=False)
    x = torch.randn(1, 2, *SIZE).double()
    with torch.no_grad():
        assert_close(ours(x).maps[-1].flatten(2).mT, theirs.vit(x)[0])


@pytest.mark.parametrize("proj_type", ["conv", "perceptron"])
def test_weights_for_other_channels_are_adapted(proj_type: str) -> None:
    theirs, ours = monai(1, proj_type).eval(), tiny(in_channels=2).double().eval()
    load_weights(ours, theirs.vit.state_dict(), verbose=False)
    x = torch.randn(1, 1, *SIZE).double()
    with torch.no_grad():
        assert_close(ours(x.repeat(1, 2, 1, 1, 1)).maps[-1].flatten(2).mT, theirs.vit(x)[0])


def test_a_file_of_another_size_of_patches_is_refused() -> None:
    with pytest.raises(CheckpointError, match="patch_embed"):
        load_weights(tiny(patch_size=8, img_size=(16, 8, 24)), tiny().state_dict(), verbose=False)


def test_positions_for_a_cube_of_another_size_are_resized() -> None:
    large, small = tiny(img_size=64), tiny(img_size=48)
    report = load_weights(small, large.state_dict(), verbose=False)
    assert report.resized.keys() == {"backbone.pos_embed"}
    ramp = torch.linspace(0, 1, 4).expand(4, 4, 4).flatten()  # along the last axis
    resized = small.adapt("pos_embed", ramp[None, :, None]).unflatten(1, (3, 3, 3))[0, ..., 0]
    torch.testing.assert_close(resized, torch.tensor([1 / 18, 0.5, 17 / 18]).expand(3, 3, 3))


def test_positions_of_no_cube_are_not_guessed() -> None:
    with pytest.raises(CheckpointError, match="pos_embed"):
        load_weights(tiny(img_size=48), tiny(img_size=(64, 64, 32)).state_dict(), verbose=False)


def test_the_same_place_has_the_same_position_at_any_size() -> None:
    backbone = tiny().eval()
    with torch.no_grad():
        backbone.pos_embed.copy_(torch.linspace(0, 1, 3).expand(2, 1, 3).reshape(1, 6, 1))
        backbone.patch_embed.proj.weight.zero_()
        tokens, grid = backbone.embed(torch.zeros(1, 1, 64, 16, 96))
    assert tuple(grid) == (4, 1, 6)
    cells = (tokens - backbone.patch_embed.proj.bias).unflatten(1, (4, 1, 6))[0, :, 0, :, 0]
    expected = torch.tensor([0, 0.125, 0.375, 0.625, 0.875, 1])
    torch.testing.assert_close(cells, expected.expand(4, 6))


def test_volumes_of_any_size_are_padded_by_zeros() -> None:
    backbone = tiny(patch_size=(4, 8, 16)).eval()
    assert backbone.divisor == (4, 8, 16)
    x = torch.zeros(1, 1, 8, 24, 32)
    x[:, :, :7, :17, :30] = torch.randn(1, 1, 7, 17, 30)
    with torch.no_grad():
        padded, whole = backbone(x[:, :, :7, :17, :30]).maps, backbone(x).maps
    assert padded[0].shape == (1, 24, 2, 3, 2)
    for a, b in zip(padded, whole, strict=True):
        torch.testing.assert_close(a, b)


def test_maps_are_those_of_the_taps_and_the_normed_last_one() -> None:
    backbone = tiny(depth=4, taps=(1, 3)).eval()
    outputs: list[Tensor] = []
    for block in backbone.blocks:
        block.register_forward_hook(lambda module, args, output: outputs.append(output))
    maps = backbone(torch.randn(1, 1, *SIZE)).maps
    assert backbone.specs == (FeatureSpec(24, (16, 16, 16)),) * 3
    for found, tokens in zip(maps, (outputs[0], outputs[2], backbone.norm(outputs[3])), strict=True):
        torch.testing.assert_close(found.flatten(2).mT, tokens)


def test_blocks_and_norms_that_nobody_reads_are_not_built() -> None:
    backbone = tiny(depth=4, taps=(1, 3), out_indices=(0, 1))
    assert len(backbone.blocks) == 3
    assert not any(key.startswith("norm.") for key in backbone.state_dict())
    assert backbone.layer_groups()[-1] == ("blocks.2.",)
    assert tiny(depth=4, taps=(1, 3)).layer_groups()[-1] == ("norm.",)


def test_projections_start_as_those_of_monai() -> None:
    conv, perceptron = (tiny(proj_type=p, dim=96).patch_embed.proj for p in ("conv", "perceptron"))
    assert conv.weight.std().item() == pytest.approx(4096**-0.5 / 3**0.5, rel=0.02)
    assert perceptron.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not perceptron.bias.any()


def test_dropout_is_for_training() -> None:
    backbone, x = tiny(dropout_rate=0.5), torch.randn(1, 1, *SIZE)
    plain = tiny().eval()
    torch.testing.assert_close(backbone.eval()(x).maps[-1], plain(x).maps[-1])
    backbone.train()
    assert not torch.allclose(backbone(x).maps[0], backbone(x).maps[0])
    assert not tiny(dropout_rate=1.0).train()(x).maps[0].any()  # nothing is left, not even biases


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "24 channels into 5 heads"),
        ({"taps": (4, 4)}, "taps of UNETRViT"),
        ({"depth": 4}, "taps of UNETRViT are increasing numbers of its 4 blocks"),
        ({"taps": (0, 4)}, "taps of UNETRViT"),
        ({"proj_type": "linear"}, "'conv' or 'perceptron', not 'linear'"),
        ({"patch_size": (16, 16)}, "patch_size of UNETRViT"),
        ({"img_size": 0}, "img_size of UNETRViT"),
        ({"out_indices": (4,)}, "out_indices"),
        ({"frozen_stages": 13}, "frozen_stages"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**options)


@pytest.mark.parametrize("shape", [(1, 3, 32, 16, 48), (1, 1, 32, 48), (1, 1, 0, 16, 16)])
def test_what_is_no_volume_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="volumes"):
        tiny()(torch.zeros(shape))
