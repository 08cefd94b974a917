"""FPNHead: the head of Semantic FPN, against what the paper and mmsegmentation describe."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.tv_tensors import Mask

from densevit.errors import ConfigError
from densevit.features import Features, FeatureSpec, Specs, expected_shape
from densevit.necks import FPN
from densevit.structures import Meta, Sample, SegTarget
from densevit.tasks.segmentation import FPNHead

PYRAMID = tuple(FeatureSpec(8, (s, s)) for s in (4, 8, 16, 32))


def head(specs: Specs = PYRAMID, **options: Any) -> FPNHead:
    """Return a head all of whose tensors are random, statistics of batch norm included."""
    torch.manual_seed(0)
    made = FPNHead(specs, 5, **{"channels": 6, "dropout": 0, **options}).double()
    for key, value in made.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if key.endswith("running_var") else value.normal_()
    return made


def features(specs: Specs = PYRAMID, size: tuple[int, int] = (64, 96)) -> Features:
    torch.manual_seed(1)
    return Features(tuple(torch.randn(expected_shape(s, 2, size), dtype=torch.float64) for s in specs))


def described(made: FPNHead, x: Features) -> Tensor:
    """Compute what mmsegmentation does, from the weights under its names; doubled is the grid of the next finer map."""
    state, training = made.state_dict(), made.training
    total = torch.zeros(())
    for level, y in enumerate(x.maps):
        for step in range(max(1, level)):
            name = f"scale_heads.{level}.{2 * step}"
            y = F.conv2d(y, state[f"{name}.conv.weight"], padding=1)
            mean, var = state[f"{name}.bn.running_mean"].clone(), state[f"{name}.bn.running_var"].clone()
            y = F.batch_norm(y, mean, var, state[f"{name}.bn.weight"], state[f"{name}.bn.bias"], training).relu()
            if level:
                finer = x.maps[level - 1 - step].shape[2:]
                y = F.interpolate(y, finer, mode="bilinear", align_corners=False)
        total = total + y
    return F.conv2d(total, state["conv_seg.weight"], state["conv_seg.bias"])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (97, 130)])
def test_logits_are_those_of_the_description(training: bool, size: tuple[int, int]) -> None:
    made, x = head().train(training), features(size=size)
    expected = described(made, x)
    torch.testing.assert_close(made(x), expected)


def test_a_constant_stays_constant_at_odd_sizes() -> None:
    made = head(channels=1)
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            # Only the middle of a kernel, so that padding does not matter.
            middle = module.weight[..., module.kernel_size[0] // 2, module.kernel_size[1] // 2].clone()
            module.weight.data.zero_()
            module.weight.data[..., module.kernel_size[0] // 2, module.kernel_size[1] // 2] = middle
    x = Features(tuple(torch.ones_like(m) for m in features(size=(97, 130)).maps))
    logits = made.eval()(x)
    torch.testing.assert_close(logits, logits[:, :, :1, :1].expand_as(logits))


def test_missing_levels_and_equal_strides_are_taken() -> None:
    specs = tuple(FeatureSpec(8, (s, s)) for s in (4, 4, 16))
    made = head(specs).eval()
    assert [len(level) for level in made.scale_heads] == [1, 1, 2]
    assert made(features(specs)).shape == (2, 5, 16, 24)


def test_strides_that_doubling_does_not_reach_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot double stride \(12, 12\) to \(4, 4\)"):
        head(tuple(FeatureSpec(8, (s, s)) for s in (4, 12)))


def test_names_and_number_of_parameters_are_those_of_mmsegmentation() -> None:
    made = FPNHead(tuple(FeatureSpec(256, s.stride) for s in PYRAMID), 150)
    weights = [n for n in made.state_dict() if n.endswith("conv.weight")]
    assert weights == [f"scale_heads.{name}.conv.weight" for name in ("0.0", "1.0", "2.0", "2.2", "3.0", "3.2", "3.4")]
    # Four convolutions of 256 channels and three of 128, their norms, the classifier.
    expected = 4 * 256 * 128 * 9 + 3 * 128 * 128 * 9 + 7 * 2 * 128 + 128 * 150 + 150
    assert sum(p.numel() for p in made.parameters()) == expected


def test_with_its_neck_every_parameter_learns() -> None:
    torch.manual_seed(0)
    neck = FPN(PYRAMID, out_channels=8)
    made = FPNHead(neck.specs, 5, channels=8)
    logits = made(Features(neck(tuple(m.float() for m in features().maps))))
    masks = torch.randint(5, (2, 64, 96), dtype=torch.uint8)
    samples = [Sample(torch.empty(0), SegTarget(Mask(m)), Meta("", (64, 96), (64, 96))) for m in masks]
    losses = made.loss(logits, samples)
    assert losses["loss_seg"].isfinite()
    losses["loss_seg"].backward()
    parameters = [*neck.named_parameters(), *made.named_parameters()]
    assert [n for n, p in parameters if p.grad is None or not p.grad.any()] == []


def test_compiles_and_exports() -> None:
    made, x = head().eval(), features()
    with torch.no_grad():
        expected = made(x)
        torch.testing.assert_close(torch.compile(made, backend="aot_eager", fullgraph=True)(x), expected)
        torch.testing.assert_close(torch.export.export(made, (x,)).module()(x), expected)
