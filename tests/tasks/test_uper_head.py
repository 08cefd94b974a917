"""UPerHead and FCNHead: equal to transformers' UPerNet with the same weights; the second head in training only."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.tv_tensors import Mask

from densevit.errors import ConfigError
from densevit.features import Features, FeatureSpec, expected_shape
from densevit.structures import Meta, Sample, SegTarget
from densevit.tasks.segmentation import FCNHead, UPerHead

CHANNELS, CLASSES = (6, 8, 10, 12), 5
SPECS = tuple(FeatureSpec(c, (s, s)) for c, s in zip(CHANNELS, (4, 8, 16, 32), strict=True))
AUXILIARY = {"type": "FCNHead", "index": 2, "channels": 7, "dropout": 0}


def head(**options: Any) -> UPerHead:
    torch.manual_seed(0)
    return UPerHead(SPECS, CLASSES, **{"channels": 9, "dropout": 0, "auxiliary": AUXILIARY, **options}).double()


def features(size: tuple[int, int] = (96, 128)) -> Features:
    torch.manual_seed(1)
    return Features(tuple(torch.randn(expected_shape(s, 2, size), dtype=torch.float64) for s in SPECS))


def samples(size: tuple[int, int] = (96, 128)) -> list[Sample]:
    torch.manual_seed(2)
    masks = torch.randint(CLASSES, (2, *size), dtype=torch.uint8)
    return [Sample(torch.empty(0), SegTarget(Mask(m)), Meta("", size, size)) for m in masks]


@pytest.fixture
def theirs() -> Any:
    """Return transformers' model, of which only the heads are used, with random weights and statistics."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    stages = [f"stage{i}" for i in range(1, 5)]
    backbone = transformers.ConvNextConfig(hidden_sizes=list(CHANNELS), depths=[1, 1, 1, 1], out_features=stages)
    config = transformers.UperNetConfig(
        backbone_config=backbone, hidden_size=9, auxiliary_channels=7, num_labels=CLASSES
    )
    model = transformers.UperNetForSemanticSegmentation(config)
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if key.endswith("running_var") else value.normal_(std=0.3)
    return model.double()


def translate(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename what belongs to the heads of transformers' model."""
    kept = {k.removeprefix("decode_head."): v for k, v in named.items() if "_head." in k}
    return UPerHead.translate(kept)


@pytest.mark.parametrize("size", [(96, 128), (97, 130)])
def test_logits_are_those_of_transformers(theirs: Any, size: tuple[int, int]) -> None:
    ours, x = head().eval(), features(size)
    ours.load_state_dict(translate(theirs.state_dict()))
    torch.testing.assert_close(ours(x), theirs.eval().decode_head(x.maps))


def test_logits_gradients_and_statistics_of_a_training_step_are_those_of_transformers(theirs: Any) -> None:
    ours, x = head().train(), features()
    ours.load_state_dict(translate(theirs.state_dict()))
    theirs.train()
    expected = theirs.decode_head(x.maps), theirs.auxiliary_head(x.maps)
    outputs = ours(x)
    for a, b in zip(outputs, expected, strict=True):
        torch.testing.assert_close(a, b)
        slope = torch.randn_like(a)
        a.backward(slope)
        b.backward(slope)
    gradients = translate({name: p.grad for name, p in theirs.named_parameters() if p.grad is not None})
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, gradients.pop(name), msg=name)
    assert gradients == {}
    statistics = translate(dict(theirs.named_buffers()))
    for name, value in ours.named_buffers():
        torch.testing.assert_close(value, statistics[name], msg=name)


def test_names_of_parameters_are_those_of_mmsegmentation() -> None:
    names = set(head().state_dict())
    assert {
        "psp_modules.3.1.conv.weight",
        "psp_modules.0.1.bn.running_var",
        "bottleneck.conv.weight",
        "lateral_convs.2.bn.weight",
        "fpn_convs.0.conv.weight",
        "fpn_bottleneck.bn.bias",
        "conv_seg.bias",
        "auxiliary_head.convs.0.conv.weight",
        "auxiliary_head.conv_seg.weight",
    } <= names
    state = head().state_dict()
    assert UPerHead.translate(state).keys() == state.keys()


def test_the_second_head_runs_and_counts_in_training_only() -> None:
    made, x = head(auxiliary_weight=0.25), features()
    losses = made.loss(made.train()(x), samples())
    assert made.auxiliary_head is not None
    auxiliary = made.auxiliary_head.loss(made.auxiliary_head(x), samples())["loss_seg"]
    torch.testing.assert_close(losses["loss_aux"], 0.25 * auxiliary)
    logits = made.eval()(x)
    assert isinstance(logits, Tensor)
    assert made.loss(logits, samples()).keys() == {"loss_seg", "acc_seg"}
    assert made.predict(logits, [s.meta for s in samples()])[0].mask.shape == (96, 128)


def test_the_second_head_shares_classes_and_weights_of_the_loss() -> None:
    made = head(ignore_index=3, class_weights=[1.0, 2.0, 3.0, 4.0, 5.0])
    assert made.auxiliary_head is not None
    assert made.auxiliary_head.ignore_index == 3
    assert made.auxiliary_head.num_classes == CLASSES
    torch.testing.assert_close(made.auxiliary_head.class_weights, made.class_weights)


def test_without_a_second_head_training_gives_one_loss() -> None:
    made, x = head(auxiliary=None).train(), features()
    assert made.loss(made(x), samples()).keys() == {"loss_seg", "acc_seg"}


def test_every_parameter_learns() -> None:
    made, x = head(dropout=0.1).train(), features()
    losses = made.loss(made(x), samples())
    (losses["loss_seg"] + losses["loss_aux"]).backward()
    assert [n for n, p in made.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_maps_smaller_than_the_pooled_ones_are_taken() -> None:
    made = head().train()
    assert made(features((32, 33)))[0].shape == (2, CLASSES, 8, 9)


def test_compiles_and_exports() -> None:
    made, x = head().eval(), features()
    with torch.no_grad():
        expected = made(x)
        torch.testing.assert_close(torch.compile(made, backend="aot_eager", fullgraph=True)(x), expected)
        torch.testing.assert_close(torch.export.export(made, (x,)).module()(x), expected)


def test_a_misspelt_key_of_the_second_head_is_named() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'channels'"):
        head(auxiliary={"type": "FCNHead", "chanels": 3})


@pytest.mark.parametrize(
    ("options", "message"),
    [({"index": 4}, "given 4 maps: index must be 0 to 3, not 4"), ({"num_convs": 0}, "at least 1, not 0")],
)
def test_an_fcn_head_of_nothing_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FCNHead(SPECS, CLASSES, **options)


def test_an_fcn_head_has_as_many_convolutions_as_asked_for() -> None:
    made = FCNHead(SPECS, CLASSES, index=-1, channels=4, num_convs=3).double().eval()
    assert [c.conv.in_channels for c in made.convs] == [12, 4, 4]
    assert made.stride == (32, 32)
    assert made(features()).shape == (2, CLASSES, 3, 4)
