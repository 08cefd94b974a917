"""Backbones of images along three axes, for volumes: they extend the image models, and keep the contract."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from densevit.backbones import CMT, MiT
from densevit.errors import ConfigError
from densevit.features import Backbone, Features, expected_shape
from densevit.registry import BACKBONES
from densevit.weights import load_weights


def mit(**options: Any) -> MiT:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "num_heads": (1, 2, 3, 4)}
    return MiT(**{**sizes, **options})


def cmt(**options: Any) -> CMT:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "num_heads": (1, 2, 3, 4)}
    backbone = CMT(**{**sizes, "stem_channels": 4, "img_size": 32, **options})
    for module in backbone.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return backbone


Make = Callable[..., Backbone]


@pytest.fixture(params=[mit, cmt], ids=["mit", "cmt"])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param


def tensors(features: Features) -> list[Tensor]:
    return [*features.maps, *([] if features.token is None else [features.token])]


def assert_slices(volume: Features, image: Features) -> None:
    """Check that every slice of the maps of a volume is the map of the image, and the token that of the image."""
    assert len(volume.maps) == len(image.maps) > 0
    for found, expected in zip(volume.maps, image.maps, strict=True):
        tolerance = 1e-5 * expected.abs().max().item()
        torch.testing.assert_close(found, expected.unsqueeze(2).expand_as(found), rtol=0, atol=tolerance)
    if image.token is not None:
        torch.testing.assert_close(volume.token, image.token, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("depth", [32, 45])
def test_a_volume_of_equal_slices_has_in_every_slice_the_features_of_the_image(make: Make, depth: int) -> None:
    options = {"token": True, "out_indices": range(4)}
    image, volume = make(**options).eval(), make(axes=3, **options).eval()
    report = load_weights(volume, image.state_dict(), verbose=False)
    assert report.missing == report.unexpected == []
    assert report.resized == report.skipped == {}
    assert "backbone." + next(iter(image.state_dict())) in report.completed
    x = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        assert_slices(volume(x.unsqueeze(2).expand(-1, -1, depth, -1, -1)), image(x))


def test_position_biases_are_resized_in_the_plane_first() -> None:
    image, volume = cmt(img_size=96).eval(), cmt(img_size=(32, 64, 64), axes=3).eval()
    load_weights(volume, image.state_dict(), verbose=False)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert_slices(volume(x.unsqueeze(2).expand(-1, -1, 32, -1, -1)), image(x))


def test_a_volume_of_one_channel_starts_from_the_sum_of_the_kernels_of_colours(make: Make) -> None:
    image, volume = make().eval(), make(axes=3, in_channels=1).eval()
    report = load_weights(volume, image.state_dict(), verbose=False)
    assert list(report.resized.values()) == ["3 -> 1 input channels"]
    x = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        assert_slices(volume(x.unsqueeze(2).expand(-1, -1, 32, -1, -1)), image(x.repeat(1, 3, 1, 1)))


def test_foreign_weights_of_images_are_renamed_first() -> None:
    image, volume = mit(), mit(axes=3)
    foreign = {
        key.replace("patch_embed1.proj", "segformer.encoder.patch_embeddings.0.proj"): value
        for key, value in image.state_dict().items()
    }
    foreign = {
        key.replace("patch_embed1.norm", "segformer.encoder.patch_embeddings.0.layer_norm"): value
        for key, value in foreign.items()
    }
    assert load_weights(volume, foreign, verbose=False).missing == []


def test_own_weights_pass_through(make: Make) -> None:
    volume = make(axes=3)
    report = load_weights(volume, make(axes=3).state_dict(), verbose=False)
    assert report.completed == report.missing == []
    assert make().from_images(make().state_dict()).keys() == make().state_dict().keys()


def test_position_biases_of_a_cube_of_another_size_are_resized() -> None:
    large, small = cmt(img_size=64, axes=3).eval(), cmt(img_size=(32, 48, 32), axes=3).eval()
    report = load_weights(small, large.state_dict(), verbose=False)
    assert report.resized.keys() == {f"backbone.relative_pos_{stage}" for stage in "abcd"}
    x = torch.randn(1, 3, 32, 48, 32)
    with torch.no_grad():
        for ours, theirs in zip(small(x).maps, large(x).maps, strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("size", [(32, 32, 64), (33, 49, 37)])
def test_maps_have_the_promised_shapes_at_any_size(make: Make, size: tuple[int, ...]) -> None:
    backbone = make(axes=3, in_channels=1).eval()
    assert backbone.divisor == (32, 32, 32)
    assert [spec.stride for spec in backbone.specs] == [(s,) * 3 for s in (4, 8, 16, 32)]
    with torch.no_grad():
        maps = backbone(torch.randn(1, 1, *size)).maps
    assert [tuple(m.shape) for m in maps] == [expected_shape(s, 1, size) for s in backbone.specs]


def test_the_three_axes_are_told_apart_by_weights_alone(make: Make) -> None:
    """A volume turned about gives other features, but kernels turned with it the same."""
    backbone, turned = make(axes=3).eval(), make(axes=3).eval()
    state = {k: v.transpose(2, 4) if v.ndim == 5 else v for k, v in backbone.state_dict().items()}
    for key in (key for key in state if key.startswith("relative_pos_")):
        i = "abcd".index(key[-1])
        queries, keys = backbone._grids(i, backbone.space)
        grid = state[key].unflatten(2, tuple(keys)).unflatten(1, tuple(queries))
        state[key] = grid.transpose(1, 3).transpose(4, 6).flatten(4).flatten(1, 3)
    turned.load_state_dict(state)
    x = torch.randn(1, 3, 32, 40, 48)
    with torch.no_grad():
        same, other = turned(x.transpose(2, 4)).maps, backbone(x.transpose(2, 4)).maps
        for a, b, c in zip(backbone(x).maps, same, other, strict=True):
            torch.testing.assert_close(a, b.transpose(2, 4), rtol=1e-4, atol=1e-4)
            assert not torch.allclose(a, c.transpose(2, 4), rtol=1e-2, atol=1e-2)


def test_every_parameter_learns_with_and_without_kept_activations(make: Make) -> None:
    gradients = []
    for checkpointing in (False, True):
        backbone = make(axes=3, in_channels=1, token=True, out_indices=range(4), drop_path=0.0).train()
        backbone.checkpointing = checkpointing
        features = backbone(torch.linspace(-1, 1, 2 * 33 * 32 * 32).sin().view(2, 1, 33, 32, 32))
        sum(t.square().mean() for t in tensors(features)).backward()
        gradients.append({name: p.grad for name, p in backbone.named_parameters()})
    for name, grad in gradients[0].items():
        assert grad is not None
        assert grad.any(), name
        torch.testing.assert_close(grad, gradients[1][name], msg=name)


@pytest.mark.slow
def test_compiles_and_exports(make: Make) -> None:
    backbone, x = make(axes=3).eval(), torch.randn(1, 3, 32, 33, 48)
    torch.compiler.reset()
    with torch.no_grad():
        expected = backbone(x).maps
        compiled = torch.compile(backbone, backend="aot_eager", fullgraph=True)(x).maps
        exported = torch.export.export(backbone, (x,)).module()(x).maps
    for a, b, c in zip(expected, compiled, exported, strict=True):
        torch.testing.assert_close(b, a)
        torch.testing.assert_close(c, a)


def test_layer_groups_and_frozen_stages_are_those_of_images(make: Make) -> None:
    image, volume = make(frozen_stages=1), make(axes=3, frozen_stages=1)
    assert image.layer_groups() == volume.layer_groups()
    trained = [[name for name, p in net.named_parameters() if p.requires_grad] for net in (image, volume)]
    assert trained[0] == trained[1] != []


@pytest.mark.parametrize("axes", [1, 4])
def test_other_numbers_of_axes_are_refused(make: Make, axes: int) -> None:
    with pytest.raises(ConfigError, match=f"axes of (MiT|CMT) is 2, for images, or 3, for volumes, not {axes}"):
        make(axes=axes)


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 1, 32, 32, 32), (1, 3, 16, 32, 32)])
def test_what_is_no_volume_is_refused(make: Make, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="volumes"):
        make(axes=3)(torch.randn(shape))


@pytest.mark.parametrize("name", ["mit_b0", "cmt_ti"])
def test_variants_take_the_axes(name: str) -> None:
    with torch.device("meta"):
        image = BACKBONES.build({"type": name, "depths": (1, 1, 1, 1)})
        volume = BACKBONES.build({"type": name, "depths": (1, 1, 1, 1), "axes": 3})
    assert [spec.channels for spec in volume.specs] == [spec.channels for spec in image.specs]
    assert volume.state_dict().keys() == image.state_dict().keys()
