"""UNETR's decoder: MONAI's numbers with its backbone, and levels for the maps of any other."""

from dataclasses import replace

import pytest
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNETR
from torch import Tensor

from densevit import load_weights
from densevit.errors import ConfigError
from densevit.features import Features, FeatureSpec, Specs, expected_shape
from densevit.model import DenseModel
from densevit.registry import MODELS
from densevit.structures import Meta, Sample, VolumeTarget
from densevit.tasks.medical import UNETRHead
from densevit.tasks.medical.levels import Stride, level_strides
from densevit.tasks.medical.loss import dice_and_cross_entropy

CUBE = (16, 16, 16)
SIZE = (32, 16, 16)


def specs(*strides: Stride, channels: int = 6) -> Specs:
    """Return those of an input of one channel, and of maps."""
    return (FeatureSpec(1, (1, 1, 1)), *(FeatureSpec(channels, stride) for stride in strides))


def features(of: Specs, space: tuple[int, ...], batch: int = 2) -> Features:
    torch.manual_seed(1)
    return Features(tuple(torch.randn(expected_shape(spec, batch, space)) for spec in of))


def build(of: Specs, **options: object) -> UNETRHead:
    torch.manual_seed(0)
    return UNETRHead(of, 3, feature_size=4, **options)


def unetr(in_channels: int = 2, **options: object) -> DenseModel:
    backbone = {"type": "UNETRViT", "dim": 24, "hidden": 32, "num_heads": 2, "img_size": SIZE}
    head = {"type": "UNETRHead", "num_classes": 3, "feature_size": 4, **options}
    return MODELS.build(
        {
            "type": "DenseModel",
            "backbone": {**backbone, "in_channels": in_channels},
            "head": head,
            "data_preprocessor": {"mean": (0,) * in_channels, "std": (1,) * in_channels},
            "precision": "fp32",
        }
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"res_block": False}, {"conv_block": False, "norm": ("batch", {"eps": 1e-3})}],
    ids=["usual", "plain", "old"],
)
def test_unetr_is_monai_s_in_outputs_and_gradients(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    named = {{"norm": "norm_name"}.get(key, key): value for key, value in options.items()}
    theirs = UNETR(2, 3, SIZE, feature_size=4, hidden_size=24, mlp_dim=32, num_heads=2, **named).double()
    ours = unetr(**options).double()
    load_weights(ours, theirs.state_dict(), verbose=False)
    x = torch.randn(2, 2, *SIZE, dtype=torch.double)
    a, b = ours.train()(x), theirs.train()(x)
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    weight = torch.randn_like(b)
    (a * weight).sum().backward()
    (b * weight).sum().backward()
    expected = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    assert len(expected) == len(list(ours.parameters()))
    for name in ("encoder1", "encoder2", "encoder4", "decoder5", "decoder2", "out"):
        found = {f"{name}.{key}": p.grad for key, p in ours.head.get_submodule(name).named_parameters()}
        assert found
        for key, grad in found.items():
            torch.testing.assert_close(grad, expected[key], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("maps", "levels"),
    [
        ([CUBE] * 4, [(1, 1, 1), (2, 2, 2), (4, 4, 4), (8, 8, 8), CUBE]),
        ([CUBE], [(1, 1, 1), (2, 2, 2), (4, 4, 4), (8, 8, 8), CUBE]),
        ([(4, 4, 4), (8, 8, 8)], [(1, 1, 1), (2, 2, 2), (4, 4, 4), (8, 8, 8)]),
        ([(1, 4, 4), (1, 8, 8)], [(1, 1, 1), (1, 2, 2), (1, 4, 4), (1, 8, 8)]),
        ([(2, 4, 4), (2, 8, 8)], [(1, 1, 1), (1, 2, 2), (2, 4, 4), (2, 8, 8)]),
        ([(4, 16, 16)] * 3, [(1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8), (4, 16, 16)]),
        ([(1, 14, 14)] * 2, [(1, 1, 1), (1, 7, 7), (1, 14, 14)]),
        ([(1, 4, 4), (2, 4, 4)], [(1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 4, 4)]),
    ],
)
def test_levels_halve_what_the_maps_leave_open(maps: list[Stride], levels: list[Stride]) -> None:
    assert level_strides(maps) == levels


@pytest.mark.parametrize(
    ("strides", "space"),
    [
        ([CUBE] * 4, (16, 17, 33)),
        ([(4, 4, 4), (8, 8, 8), CUBE, (32, 32, 32)], (33, 16, 20)),
        ([(1, 4, 4), (1, 8, 8)], (3, 17, 12)),
        ([(2, 4, 4), (2, 8, 8)], (5, 17, 12)),
        ([(4, 16, 16)] * 3, (9, 33, 17)),
        ([(1, 14, 14)] * 2, (2, 29, 15)),
        ([(9, 3, 3)], (10, 4, 11)),
    ],
)
def test_any_strides_and_sizes_give_a_logit_per_voxel_and_gradients_everywhere(
    strides: list[Stride], space: tuple[int, ...]
) -> None:
    of = specs(*strides)
    head, inputs = build(of).train(), features(of, space)
    logits = head(inputs)
    assert logits.shape == (2, 3, *space)
    logits.square().mean().backward()
    assert [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []
    alone = head(Features(tuple(m[:1] for m in inputs.maps)))
    torch.testing.assert_close(alone, logits[:1], rtol=1e-4, atol=1e-4)


def test_every_map_and_the_input_are_read() -> None:
    of = specs((4, 4, 4), (8, 8, 8), CUBE)
    inputs = features(of, (32, 32, 32))
    for x in inputs.maps:
        x.requires_grad_()
    build(of)(inputs).square().mean().backward()
    assert all(x.grad is not None and x.grad.any() for x in inputs.maps)


def test_what_is_raised_to_odd_sizes_stays_where_it_was() -> None:
    of = specs((4, 4, 4), (8, 8, 8))
    head = build(of, norm="batch").eval()  # an instance norm would see everything
    inputs = features(of, (25, 25, 25), batch=1)
    coarse = inputs.maps[2].requires_grad_()
    logits = head(inputs)
    for voxel, near, far in ((0, 0, 3), (24, 3, 0)):
        (slope,) = torch.autograd.grad(logits[..., voxel, voxel, voxel].sum(), coarse, retain_graph=True)
        assert slope[..., near, near, near].any()
        assert not slope[..., far, far, far].any()


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ([(4, 4, 4)] * 3, "3 maps .* are too many, .* out_indices"),
        ([(1, 1, 1)], "1 maps .* are too many"),
        ([(3, 3, 3), (4, 4, 4)], r"\(4, 4, 4\) is no multiple of \(3, 3, 3\)"),
    ],
)
def test_maps_without_a_level_of_their_own_are_refused(maps: list[Stride], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(specs(*maps))


def test_an_input_of_one_cell_is_refused_with_a_reason() -> None:
    of = specs((4, 4, 4), (8, 8, 8))
    with pytest.raises(ValueError, match=r"larger than \(4, 4, 4\) along an axis, not \(4, 3, 4\)"):
        build(of)(features(of, (4, 3, 4)))
    build(of)(features(of, (4, 5, 4)))


def test_the_loss_is_monai_s() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 6, 5, 7, dtype=torch.double, requires_grad=True)
    target = torch.randint(0, 3, (2, 6, 5, 7), dtype=torch.uint8)  # class 3 does not occur
    reference = DiceCELoss(to_onehot_y=True, softmax=True, squared_pred=True, smooth_nr=0, smooth_dr=1e-6)
    expected = reference(logits, target[:, None].long())
    (slope,) = torch.autograd.grad(expected, logits)
    dice, cross_entropy = dice_and_cross_entropy(logits, target)
    torch.testing.assert_close(dice + cross_entropy, expected)
    torch.testing.assert_close(torch.autograd.grad(dice + cross_entropy, logits)[0], slope)


def sample(space: tuple[int, ...], meta: Meta | None = None) -> Sample:
    target = VolumeTarget(torch.randint(0, 3, space, dtype=torch.uint8), torch.ones(3))
    return Sample(torch.randn(1, *space), target, meta or Meta("a.nii.gz", space, space))


def test_the_loss_is_in_fp32_and_padding_is_background() -> None:
    samples = [sample((20, 16, 16)), sample((32, 9, 16))]
    model = unetr(in_channels=1)
    data = model.data_preprocessor(samples, True)
    assert data["inputs"].shape == (2, 1, *SIZE)
    model.precision = "bf16"
    terms = model(data["inputs"], data["samples"], mode="loss")
    assert terms.keys() == {"loss_dice", "loss_ce"}
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    logits = torch.zeros(2, 3, *SIZE)
    logits[:, 0] = 50.0
    wrong = [(s.target.mask > 0).sum() for s in samples]
    expected = 50.0 * sum(wrong) / (2 * 32 * 16 * 16)
    torch.testing.assert_close(model.head.loss(logits, samples)["loss_ce"], expected)


@pytest.mark.parametrize("outputs", [torch.zeros(1, 3, 4, 4, 4), torch.zeros(1, 4, 4, 4, dtype=torch.uint8)])
def test_the_loss_of_an_evaluation_is_refused(outputs: Tensor) -> None:
    size = (4, 4, 4)
    meta = Meta("a.nii.gz", size, size, torch.eye(4, dtype=torch.float64) if outputs.ndim == 5 else None)
    with pytest.raises(ConfigError, match=r"val_cfg = dict\(loss=False\)"):
        build(specs(CUBE)).loss(outputs, [sample(size, meta)])


def test_predictions_are_on_the_grid_of_the_file() -> None:
    head = build(specs(CUBE))
    labels = torch.zeros(1, 6, 8, 8, dtype=torch.uint8)
    labels[0, 1, 2, 3] = 2
    logits = torch.nn.functional.one_hot(labels.long(), 3).movedim(-1, 1).float()
    # The input has the axes of the file in another order, the last reversed, and a margin of one voxel.
    to_input = torch.tensor([[0, 1, 0, 1], [0, 0, -1, 6], [1, 0, 0, 1], [0, 0, 0, 1.0]], dtype=torch.float64)
    meta = Meta("a.nii.gz", (5, 4, 6), (6, 8, 7), to_input)
    for outputs in (labels, logits):
        (found,) = head.predict(outputs, [meta])
        assert (found.like, found.mask.dtype, found.mask.shape) == ("a.nii.gz", torch.uint8, (5, 4, 6))
        assert found.mask.nonzero().tolist() == [[2, 0, 4]]
        assert found.mask[2, 0, 4] == 2
    same = replace(meta, to_input=None, original_size=(6, 8, 8), input_size=(6, 8, 8))
    assert torch.equal(head.predict(labels, [same])[0].mask, labels[0])
