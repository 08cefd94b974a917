"""MLP-Mixer: sizes, names, initialisation, timm's numbers, other images than it was made for."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from densevit.api import create_model
from densevit.backbones import MLPMixer
from densevit.backbones.mixer import resize_weight
from densevit.errors import CheckpointError, ConfigError
from densevit.layers import resize
from densevit.registry import BACKBONES
from densevit.weights import load_weights

KEYS = Path(__file__).parents[3] / "shared" / "oracle" / "keys"
# Width, parameters, and multiply-adds in G for an image of 224 x 224, of the official models with their classifier.
SIZES = {
    "mixer_s32": (512, 19_104_624, 1.0024),
    "mixer_s16": (512, 18_528_264, 3.7770),
    "mixer_b32": (768, 60_293_428, 3.2377),
    "mixer_b16": (768, 59_880_472, 12.6018),
    "mixer_l32": (1024, 206_939_264, 11.2533),
    "mixer_l16": (1024, 208_196_168, 44.5477),
}
# Standard deviations right after timm's construction of mixer_s32.
INIT = {
    "patch_embed.proj.weight": 0.018054,
    "blocks.0.mlp_tokens.fc1.weight": 0.081187,
    "blocks.0.mlp_tokens.fc1.bias": 1e-6,
    "blocks.0.mlp_tokens.fc2.weight": 0.080954,
    "blocks.0.mlp_tokens.fc2.bias": 1e-6,
    "blocks.0.mlp_channels.fc1.weight": 0.027936,
    "blocks.0.mlp_channels.fc2.weight": 0.027956,
    "blocks.0.mlp_channels.fc2.bias": 1e-6,
}


def tiny(**options: Any) -> MLPMixer:
    torch.manual_seed(0)
    return MLPMixer(**{"img_size": 64, "patch_size": 8, "dim": 32, "depth": 2, **options})


def smooth(model: MLPMixer) -> MLPMixer:
    """Make the weights across cells linear in the position, so that bilinear resizing keeps them but at the border."""
    height, width = model.grid
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    plane = torch.stack([y, x, torch.ones_like(y)]).flatten(1)
    with torch.no_grad():
        for block in model.blocks:
            mlp = block.mlp_tokens
            mlp.fc1.weight.copy_(torch.randn(len(mlp.fc1.weight), 3) @ plane / plane.shape[1])
            mlp.fc2.weight.copy_(plane.T @ torch.randn(3, mlp.fc2.weight.shape[1]) / 3)
            mlp.fc2.bias.copy_(torch.randn(3) @ plane)
    return model


@pytest.mark.parametrize("name", SIZES)
def test_variants_have_the_official_size_and_cost(name: str) -> None:
    with torch.device("meta"):
        backbone, x = BACKBONES.build({"type": name, "token": True}), torch.empty(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter:
        backbone(x)
    dim, params, macs = SIZES[name]
    assert sum(p.numel() for p in backbone.parameters()) == params - 1000 * (dim + 1)
    assert counter.get_total_flops() / 2e9 == pytest.approx(macs - 1000 * dim / 1e9, abs=1e-4)


@pytest.mark.parametrize("path", sorted(KEYS.glob("timm_mixer_*_224.json")) or [None], ids=lambda p: p and p.stem)
def test_names_and_shapes_are_timm_s(path: Path | None) -> None:
    if path is None:
        pytest.skip("the lists of official names are not beside the repository")
    with torch.device("meta"):
        backbone = BACKBONES.build({"type": path.stem.removeprefix("timm_").removesuffix("_224"), "token": True})
        official = {k: torch.empty(s) for k, s in json.loads(path.read_text()).items() if not k.startswith("head.")}
    found = {k: v.shape for k, v in backbone.translate(official).items()}
    assert found == {k: v.shape for k, v in backbone.state_dict().items()}


def test_initialisation_is_the_official_one() -> None:
    torch.manual_seed(0)
    state = BACKBONES.build({"type": "mixer_s32", "depth": 1, "token": True}).state_dict()
    for key, std in INIT.items():
        assert state[key].std().item() == pytest.approx(std, rel=0.15), key
    assert state["patch_embed.proj.weight"].abs().max().item() == pytest.approx(0.04102, rel=1e-3)
    assert state["blocks.0.mlp_channels.fc1.weight"].abs().max().item() == pytest.approx(0.04841, rel=1e-3)
    assert not state["patch_embed.proj.bias"].any()


def test_epsilons_of_norms_are_the_official_ones() -> None:
    assert {m.eps for m in tiny(token=True).modules() if isinstance(m, nn.LayerNorm)} == {1e-6}


def test_drop_path_grows_along_the_blocks() -> None:
    assert [block.drop_path.p for block in tiny(depth=3, drop_path=0.4).blocks] == pytest.approx([0, 0.2, 0.4])


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(std=0.3)
    return module.double()


def test_outputs_and_gradients_are_timm_s() -> None:
    timm = pytest.importorskip("timm.models.mlp_mixer")
    theirs = randomised(timm.MlpMixer(img_size=64, patch_size=8, embed_dim=32, num_blocks=2, num_classes=0))
    ours = tiny(token=True, out_indices=(1, 3)).double()
    report = load_weights(ours, theirs.state_dict(), verbose=False)
    assert report.missing == report.unexpected == []
    assert report.skipped == {}
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    features, expected = ours(x), theirs(x)
    torch.testing.assert_close(features.token, expected)
    inner = theirs.forward_intermediates(x, indices=[0, 1], norm=False, intermediates_only=True)
    torch.testing.assert_close(list(features.maps), list(inner))
    weights = torch.randn_like(expected)
    (features.token * weights).sum().backward()
    (expected * weights).sum().backward()
    gradients = MLPMixer.translate({n: p.grad for n, p in theirs.named_parameters()})
    torch.testing.assert_close({n: p.grad for n, p in ours.named_parameters()}, gradients)


def to_jax(key: str, value: Tensor) -> tuple[str, Tensor]:
    """Return a tensor as the JAX release names it and lays it out."""
    name, _, kind = key.rpartition(".")
    parts = {"patch_embed.proj": "stem", "norm": "pre_head_layer_norm", "blocks.": "MixerBlock_", "head.fc": "head"}
    parts |= {".norm1": "/LayerNorm_0", ".norm2": "/LayerNorm_1", ".fc1": "/Dense_0", ".fc2": "/Dense_1"}
    parts |= {".mlp_tokens": "/token_mixing", ".mlp_channels": "/channel_mixing"}
    for ours in sorted(parts, key=len, reverse=True):
        name = name.replace(ours, parts[ours])
    if kind == "bias" or value.ndim == 1:
        return f"{name}/{'bias' if kind == 'bias' else 'scale'}", value
    return f"{name}/kernel", value.permute(2, 3, 1, 0) if value.ndim == 4 else value.T


def test_weights_of_the_jax_release_are_loaded_with_their_classifier() -> None:
    options = {"img_size": 64, "patch_size": 8, "dim": 32, "depth": 2}
    source, model = (create_model("mixer_s16", num_classes=5, **options) for _ in range(2))
    state = source.state_dict()
    jax = dict(to_jax(key.removeprefix("backbone."), value) for key, value in state.items())
    assert "MixerBlock_1/token_mixing/Dense_0/kernel" in jax
    assert jax["stem/kernel"].shape == (8, 8, 3, 32)
    report = load_weights(model, jax, verbose=False)
    assert report.missing == report.unexpected == []
    assert report.skipped == {}
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_gelu_of_the_jax_release_can_be_asked_for() -> None:
    exact, tanh = (tiny(token=True, gelu=gelu).double() for gelu in ("exact", "tanh"))
    tanh.load_state_dict(exact.state_dict())
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    expected, found = exact(x).token, tanh(x).token
    difference = (found - expected).abs().max() / expected.abs().max()
    assert 1e-6 < difference < 1e-2
    block = tanh.blocks[0]
    tokens, grid = torch.randn(2, 64, 32, dtype=torch.float64), (8, 8)
    across = block.mlp_tokens.fc1, nn.GELU("tanh"), block.mlp_tokens.fc2
    torch.testing.assert_close(block.mlp_tokens(tokens, grid), nn.Sequential(*across)(tokens.mT).mT)


def test_the_token_is_the_mean_of_the_normed_cells() -> None:
    backbone = tiny(token=True, out_indices=(3,))
    features = backbone(torch.randn(2, 3, 64, 64))
    cells = features.maps[0].flatten(2).mT
    torch.testing.assert_close(features.token, backbone.norm(cells).mean(dim=1))


def test_weights_of_the_trained_grid_are_used_as_they_are() -> None:
    mixing = tiny().blocks[0].mlp_tokens
    for name, value in mixing.named_parameters():
        assert resize_weight(name, value, (8, 8), (8, 8)) is value


@pytest.mark.parametrize("new", [(8, 8), (12, 4), (2, 2), (5, 7), (1, 1)])
def test_resized_weights_read_and_write_maps_that_are_the_same_everywhere_as_before(new: tuple[int, int]) -> None:
    torch.manual_seed(0)
    read, write, bias = torch.rand(6, 16) + 1, torch.full((16, 6), 0.3), torch.full((16,), 0.7)
    resized = resize_weight("fc1.weight", read, (4, 4), new)
    # Exactly for whole multiples; else cells at the border count a little more or less.
    exact = all(n % 4 == 0 for n in new)
    torch.testing.assert_close(resized.sum(dim=1), read.sum(dim=1), rtol=1e-5 if exact else 0.1, atol=0)
    cells = new[0] * new[1]
    torch.testing.assert_close(resize_weight("fc2.weight", write, (4, 4), new), torch.full((cells, 6), 0.3))
    torch.testing.assert_close(resize_weight("fc2.bias", bias, (4, 4), new), torch.full((cells,), 0.7))


def test_resized_weights_keep_their_place_on_the_grid() -> None:
    weight = torch.zeros(1, 16)
    weight[0, 1 * 4 + 3] = 1  # second row, last column
    map_ = resize_weight("fc1.weight", weight, (4, 4), (8, 12)).view(8, 12)
    assert torch.nonzero(map_ == map_.max()).float().mean(dim=0).tolist() == pytest.approx([2.5, 10.5], abs=0.51)
    written = resize_weight("fc2.weight", weight.T, (4, 4), (8, 12))
    torch.testing.assert_close(written.T.view(8, 12), map_ * 6)


@pytest.mark.parametrize("size", [(128, 128), (96, 160)])
def test_with_smooth_weights_a_larger_image_gives_about_the_larger_map(size: tuple[int, int]) -> None:
    backbone = smooth(tiny())
    image = resize(torch.randn(1, 3, 2, 2), (64, 64)).mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    with torch.no_grad():
        # Patches of the same content, so that only the number of cells differs.
        cells = resize(backbone.patch_embed.proj(image), (8, 8))
        maps = []
        for grid in ((8, 8), (size[0] // 8, size[1] // 8)):
            tokens = resize(cells, grid).flatten(2).mT
            for block in backbone.blocks:
                tokens = block(tokens, grid)
            maps.append(tokens.mT.unflatten(2, grid))
    expected = resize(maps[0], maps[1].shape[2:])
    assert (maps[1] - expected).abs().mean() < 0.1 * expected.std()
    unscaled = resize(maps[1], (8, 8))
    assert (unscaled - maps[0]).abs().mean() < 0.1 * maps[0].std()


@pytest.mark.parametrize("size", [224, 256])
def test_a_file_for_images_of_another_size_gives_what_resizing_on_the_way_gives(size: int) -> None:
    source = tiny(token=True)
    model = tiny(img_size=size, token=True)
    report = load_weights(model, source.state_dict(), verbose=False)
    assert sorted(report.resized) == sorted(
        f"backbone.blocks.{i}.mlp_tokens.{name}" for i in range(2) for name in ("fc1.weight", "fc2.weight", "fc2.bias")
    )
    assert report.missing == []
    assert report.skipped == {}
    x = torch.randn(1, 3, size, size)
    torch.testing.assert_close(model(x).token, source(x).token)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_files_in_half_precision_are_resized_too(dtype: torch.dtype) -> None:
    source, model = tiny(), tiny(img_size=128)
    load_weights(model, {k: v.to(dtype) for k, v in source.state_dict().items()}, verbose=False)
    expected = model.adapt("blocks.0.mlp_tokens.fc1.weight", source.blocks[0].mlp_tokens.fc1.weight)
    torch.testing.assert_close(model.blocks[0].mlp_tokens.fc1.weight, expected, rtol=0.02, atol=1e-4)


def test_weights_of_a_grid_that_is_no_square_are_refused_if_it_is_not_ours() -> None:
    state = tiny().state_dict()
    state["blocks.0.mlp_tokens.fc1.weight"] = torch.randn(16, 6)
    with pytest.raises(CheckpointError, match=r"blocks\.0\.mlp_tokens\.fc1\.weight"):
        load_weights(tiny(), state, verbose=False)


def test_images_are_padded_by_zeros_to_whole_patches() -> None:
    backbone, x = tiny(), torch.randn(1, 3, 61, 64)
    torch.testing.assert_close(backbone(x).maps[0], backbone(nn.functional.pad(x, (0, 0, 0, 3))).maps[0])


def test_frozen_blocks_and_patches_do_not_learn() -> None:
    backbone = tiny(depth=4, frozen_stages=2).train()
    backbone(torch.randn(2, 3, 64, 64)).maps[0].square().mean().backward()
    frozen = {".".join(n.split(".")[:2]) for n, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == {"patch_embed.proj", "blocks.0", "blocks.1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [({"gelu": "none"}, "exact"), ({"frozen_stages": 3}, "frozen_stages"), ({"out_indices": (4,)}, "out_indices")],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**options)
