"""Every backbone keeps the contract of densevit.features.

The smallest variant stands for its family. All others are tested with few blocks, but as wide as they are, among the
slow tests; what need not be computed is tested with all of them as they are.
"""

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densevit.api import AXES_OF_TASK, HEAD_OF_TASK, create_model
from densevit.backbones import VideoMViT
from densevit.errors import ConfigError
from densevit.features import Backbone, Features, expected_shape
from densevit.layers import channels_last
from densevit.registry import BACKBONES, accepted_keys
from densevit.structures import BoxTarget, Mask, Meta, Sample

SMALLEST = [
    "cct_2_3x2_32",
    "cmt_ti",
    "convmixer_256_8",
    "deepvit_16b",
    "dhvt_tiny_cifar_patch4",
    "factorised_vit_ti16",
    "mit_b0",
    "mixer_s32",
    "mobilevit_xxs",
    "mvitv2_t",
    "mvitv2_xs_16",
    "timesformer_base",
    "unetr_vit_s16",
    "vit_lite_2_4_32",
    "vit_ti16",
    "xcit_nano_12_p16",
]
# Registered functions are variants; classes want settings or, as the adapters, a name.
VARIANTS = [name for name in BACKBONES.names() if not isinstance(BACKBONES.get(name), type)]
# Of those that differ from another in a table of positions only, one is enough.
TWINS = {name for name in VARIANTS if name.endswith("_sine")} - {"cct_4_3x2_32_sine"}
# With few blocks these are the same as another.
DEEPER = re.compile(
    "cct_7_3x|cmt_scaled|cvt_[47]|deepvit_(24|32)b|dhvt_small_imagenet|mit_b[2-5]|mvitv2_s$|mvitv2_[st]_window|"
    "vit_lite_7|xcit_(small|tiny)_24"
)
OTHERS = [name for name in VARIANTS if name not in {*SMALLEST, *TWINS} and not DEEPER.match(name)]
BUILT_OTHERWISE = ("mvitv1_b", "mvitv1_b_16x4", "mvitv2_b_window")  # than the smallest of their family
STAGES = {"depths": (1, 1, 1, 1)}
FLAT = {"depth": 4}
SHALLOW: dict[str, dict[str, Any]] = {
    "cct": FLAT,
    "cmt": STAGES,
    "convmixer": FLAT,
    "cvt": FLAT,
    "deepvit": {"depth": 4, "reattention_blocks": 2},
    "dhvt": FLAT,
    "factorised": {"depth": 2, "backbone": FLAT},
    "mit": STAGES,
    "mixer": FLAT,
    "mobilevit": {"depths": (1, 1, 1)},
    # Queries of cells that are pooled in the very last block would reach no class token.
    "mvitv1": {"depths": (1, 1, 1, 2)},
    "mvitv2": STAGES,
    "timesformer": FLAT,
    "unetr": {**FLAT, "taps": (1, 2, 3)},
    "vit": FLAT,  # vit_lite_* too
    "xcit": {"depth": 6},
}
# Their 8 to 16 blocks are all alike, so that four say as much.
DEEP = ("deepvit_16b", "dhvt_tiny_cifar_patch4", "factorised_vit_ti16", "mixer_s32", "unetr_vit_s16", "vit_ti16")
# Families without a small variant.
THIN: dict[str, dict[str, Any]] = {"timesformer_base": {**FLAT, "dim": 96, "num_heads": 3, "hidden": 192}}
# Detectors, to be quick; the head of other tasks gives one tensor.
NARROW: dict[str, dict[str, int]] = {
    "detection": {"channels": 16, "num_convs": 1},
    "instance_segmentation": {
        "rpn_channels": 16,
        "roi_samples": 16,
        "fc_channels": 16,
        "mask_channels": 16,
        "mask_convs": 1,
    },
}
# Whole, with gradients, they take 8 and 15 GB; they are ViT-L with other numbers.
HUGE = ("vit_g14", "vit_gigantic14")


def shallow(name: str) -> dict[str, Any]:
    """Return the options that leave a variant with few blocks, if it is tested so."""
    if name in THIN:
        return THIN[name]
    return SHALLOW[name.partition("_")[0]] if name in DEEP or name not in SMALLEST else {}


def build(name: str, whole: bool = False, **options: Any) -> Backbone:
    torch.manual_seed(0)
    return BACKBONES.build({"type": name, **({} if whole else shallow(name)), **options})


@pytest.fixture(params=[*SMALLEST, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def backbone(name: str) -> Backbone:
    return build(name).eval()


# As dense tasks use it, and as classification does: nearly the same, and seconds each.
EITHER = [
    *(pytest.param((name, False), id=f"{name}-maps") for name in SMALLEST),
    *(pytest.param((name, True), id=f"{name}-token", marks=pytest.mark.slow) for name in SMALLEST),
    *(pytest.param((name, False), id=f"{name}-maps", marks=pytest.mark.slow) for name in OTHERS),
]
TRACED = [case for case in EITHER if case.values[0][0] in {*SMALLEST, *BUILT_OTHERWISE}]


@pytest.fixture(params=EITHER)
def either(request: pytest.FixtureRequest) -> Backbone:
    name, token = request.param
    return build(name, token=token, drop_path=0.2).eval()


def images(backbone: Backbone, batch: int = 2, extra: int = 0) -> Tensor:
    """Return images of two or three times the divisor, with ``extra`` pixels, or clips or volumes with a frame more."""
    torch.manual_seed(1)
    frames = [2 * d + min(extra, 1) for d in backbone.divisor[:-2]]
    plane = [d * (2 + i) + extra for i, d in enumerate(backbone.divisor[-2:])]
    return torch.randn(batch, backbone.in_channels, *frames, *plane)


def wake(backbone: Backbone) -> Backbone:
    """Fill layers whose weights start at zero, through which others get no gradient at first."""
    with torch.no_grad():
        for module in backbone.modules():
            if isinstance(module, nn.Linear) and not module.weight.any():
                module.weight.normal_(std=0.02)
    return backbone


def loss(features: Features) -> Tensor:
    return sum((t.float().square().mean() for t in tensors(features)), torch.zeros(()))


def projection(features: Features) -> Tensor:
    """Return a loss in which maps that end with a norm, whose mean square is constant, have gradients too."""
    torch.manual_seed(2)
    return sum(((t.float() * torch.randn(t.shape)).mean() for t in tensors(features)), torch.zeros(()))


def tensors(features: Features) -> list[Tensor]:
    return [*features.maps, *([] if features.token is None else [features.token])]


def assert_equal(a: Features, b: Features, tolerance: float = 1e-5) -> None:
    assert len(a.maps) == len(b.maps)
    for x, y in zip(tensors(a), tensors(b), strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance * y.abs().max().item())


@pytest.mark.parametrize("extra", [0, 1, 17])
def test_maps_have_the_promised_shapes_at_any_size(backbone: Backbone, extra: int) -> None:
    x = images(backbone, extra=extra)
    maps = backbone(x).maps
    assert [tuple(m.shape) for m in maps] == [expected_shape(s, 2, x.shape[2:]) for s in backbone.specs]


def test_the_token_is_what_it_says(name: str) -> None:
    backbone = build(name, token=True).eval()
    features = backbone(images(backbone))
    assert backbone.specs == features.maps == ()
    assert features.token is not None
    assert features.token.shape == (2, backbone.token_channels)
    both = build(name, token=True, out_indices=(0, 2)).eval()
    assert len(both(images(both)).maps) == len(both.specs) == 2


def unlearnt(backbone: Backbone) -> list[str]:
    return [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.any()]


def idle(backbone: Backbone) -> list[str]:
    """Return what the official MViTv2 of clips has for the cells of its last block, of which only the token is used."""
    if backbone.specs or not isinstance(backbone, VideoMViT) or backbone.cls_token is None:
        return []
    last = f"blocks.{len(backbone.blocks) - 1}.attn."
    starts = (f"{last}pool_q.", f"{last}rel_pos_")
    return [n for n, _ in backbone.named_parameters() if n.startswith(starts)]


def test_every_parameter_gets_a_gradient(either: Backbone) -> None:
    for module in either.train().modules():
        if hasattr(module, "p"):
            module.p = 0.0  # a path that is dropped has no gradient
    loss(wake(either)(images(either))).backward()
    assert unlearnt(either) == idle(either)


def test_samples_do_not_affect_each_other(either: Backbone) -> None:
    x = images(either)
    alone, both = either(x[:1]), either(x)
    assert_equal(alone, Features(tuple(m[:1] for m in both.maps), None if both.token is None else both.token[:1]))


def test_recomputed_activations_give_the_same_gradients_and_statistics(either: Backbone) -> None:
    x, before, runs = images(either), copy.deepcopy(either.state_dict()), []
    for checkpointing in (False, True):
        either.load_state_dict(before)
        either.train().zero_grad()
        either.checkpointing = checkpointing
        torch.manual_seed(5)  # of drop-path
        loss(either(x)).backward()
        runs.append({n: p.grad.clone() for n, p in either.named_parameters() if p.grad is not None})
        runs[-1] |= {name: buffer.clone() for name, buffer in either.named_buffers()}
    kept, recomputed = runs
    assert kept.keys() == recomputed.keys()
    for name, a in kept.items():
        atol = 1e-6 * a.abs().max().item() if a.is_floating_point() else 0
        torch.testing.assert_close(a, recomputed[name], rtol=1e-5, atol=atol, msg=name)


def test_each_parameter_is_in_one_layer_group(either: Backbone) -> None:
    starts = [start for group in either.layer_groups() for start in group]
    for name, _ in either.named_parameters():
        assert sum(name.startswith(start) for start in starts) == 1, name
    names = [name for name, _ in either.named_parameters()]
    for group in either.layer_groups():
        assert any(name.startswith(group) for name in names), f"{group} has no parameter"


def test_frozen_stages_do_not_learn(name: str) -> None:
    backbone = build(name, frozen_stages=1).train()
    loss(backbone(images(backbone))).backward()
    frozen = [n for n, p in backbone.named_parameters() if not p.requires_grad]
    assert frozen
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)


@pytest.mark.parametrize("batch", [1, 2])
def test_memory_layout_of_the_input_does_not_matter(backbone: Backbone, batch: int) -> None:
    x = images(backbone, batch)
    assert_equal(backbone(channels_last(x)), backbone(x))


def test_runs_in_double_precision(backbone: Backbone) -> None:
    x = images(backbone)
    single, double = backbone(x), backbone.double()(x.double())
    assert all(t.dtype == torch.float64 for t in tensors(double))
    assert_equal(Features(tuple(m.float() for m in double.maps), double.token), single)


def test_runs_under_bf16_autocast(backbone: Backbone) -> None:
    backbone.train()
    x = images(backbone)
    with torch.autocast("cpu", torch.bfloat16):
        features = backbone(x)
        loss(features).backward()
    assert all(t.isfinite().all() for t in tensors(features))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())


def test_gradients_in_bf16_are_near_those_in_fp32(backbone: Backbone) -> None:
    x, precise = images(backbone), {}
    for bf16 in (False, True):
        backbone.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            projection(backbone(x)).backward()
        if not bf16:
            precise = {name: p.grad.clone() for name, p in backbone.named_parameters()}
    # Shares of 1e-5 are rounding, as of biases of keys, which softmax ignores. The others differ by 0.28 at most.
    least = 1e-5 * torch.stack([grad.norm() for grad in precise.values()]).norm()
    errors = {k: (p.grad - precise[k]).norm() / precise[k].norm() for k, p in backbone.named_parameters()}
    assert {k: e for k, e in errors.items() if not e < 0.5 and precise[k].norm() > least} == {}


@pytest.mark.parametrize("either", TRACED, indirect=True)
def test_compiles_without_a_break(either: Backbone) -> None:
    torch.compiler.reset()  # it counts how often a function is compiled, whatever the model
    x = images(either)
    with torch.no_grad():
        assert_equal(torch.compile(either, backend="aot_eager", fullgraph=True)(x), either(x))


@pytest.mark.parametrize("either", TRACED, indirect=True)
def test_exports(either: Backbone) -> None:
    x = images(either)
    with torch.no_grad():
        assert_equal(torch.export.export(either, (x,)).module()(x), either(x))


def test_state_dict_holds_everything(name: str, backbone: Backbone) -> None:
    other = build(name).eval()
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1)
    other.load_state_dict(backbone.state_dict())
    assert_equal(other(images(backbone)), backbone(images(backbone)))


def test_construction_reads_no_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("construction must not read files")

    build(name)  # imports what it needs
    monkeypatch.setattr("builtins.open", fail)
    monkeypatch.setattr("socket.socket", fail)
    build(name)


def test_any_number_of_input_channels_can_be_asked_for(name: str) -> None:
    backbone = build(name, in_channels=5).eval()
    assert len(backbone(torch.randn(1, 5, *(2 * d for d in backbone.divisor))).maps) == len(backbone.specs)
    with pytest.raises(ValueError, match="5"):
        backbone(torch.randn(1, 3, *(2 * d for d in backbone.divisor)))


def test_own_weights_pass_through_translation(either: Backbone) -> None:
    state = either.state_dict()
    translated = either.translate(state)
    assert translated.keys() == state.keys()
    assert all(torch.equal(translated[key], state[key]) for key in state)
    assert all(either.adapt(key, value) is value for key, value in state.items())


@pytest.mark.parametrize("out_indices", [(), (1, 0), (0, 0), (0, 9), (-1,)])
def test_maps_that_do_not_exist_are_refused(name: str, out_indices: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"out_indices|return something"):
        build(name, out_indices=out_indices)


def test_a_tiny_image_works_or_is_refused_with_a_reason(backbone: Backbone) -> None:
    shapes, reason, space = [], "", (5,) * len(backbone.divisor)
    try:
        shapes = [tuple(m.shape) for m in backbone(torch.randn(1, backbone.in_channels, *space)).maps]
    except ValueError as error:
        reason = str(error)
    assert "at least" in reason or shapes == [expected_shape(s, 1, space) for s in backbone.specs]


def is_refused(name: str, task: str) -> bool:
    """Return whether a backbone of clips is asked to serve a task of images, which must be refused."""
    with torch.device("meta"):
        axes = len(build(name).divisor)
    if not axes > AXES_OF_TASK.get(task, axes):
        return False
    with pytest.raises(ConfigError, match="is a backbone of clips"):
        create_model(name, task)
    return True


@pytest.mark.parametrize("task", sorted(HEAD_OF_TASK.keys() - NARROW.keys()))
def test_serves_every_task_of_its_inputs(name: str, task: str) -> None:
    if is_refused(name, task):
        return
    torch.manual_seed(0)
    head = {"feature_size": 4} if task == "medical" else None  # to be quick
    model = create_model(name, task, num_classes=5, head=head, drop_path=0.0, **shallow(name)).train()
    outputs = model(images(model.backbone, extra=1))
    assert outputs.shape[:2] == (2, 5)
    outputs.square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def objects(seed: int) -> Sample:
    """Return an image of 64 x 80 pixels with two objects."""
    torch.manual_seed(seed)
    boxes = torch.tensor([[4.0, 8.0, 36.0, 40.0], [30.0, 2.0, 78.0, 62.0]])
    masks = torch.zeros(2, 64, 80, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    area = masks.sum((1, 2)).float()
    target = BoxTarget(boxes, torch.tensor([0, 2]), torch.zeros(2, dtype=bool), area, Mask(masks), torch.tensor(seed))
    return Sample(torch.randint(0, 256, (3, 64, 80), dtype=torch.uint8), target, Meta(str(seed), (64, 80), (64, 80)))


@pytest.mark.parametrize("task", NARROW)
def test_serves_detectors_in_training_and_in_tests(name: str, task: str) -> None:
    if is_refused(name, task):
        return
    torch.manual_seed(0)
    model = create_model(name, task, num_classes=3, head=NARROW[task], drop_path=0.0, **shallow(name))
    samples = [objects(1), objects(2)]
    terms = model.train()(**model.data_preprocessor(samples, True), mode="loss")
    losses = torch.stack([value for key, value in terms.items() if "loss" in key])
    assert losses.isfinite().all()
    assert (losses > 0).all()
    losses.sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    model.head.score_threshold = 0.0  # untrained, it is sure of nothing
    with torch.no_grad():
        predictions = model.eval().test_step(samples)
    for found in predictions:
        assert found.size == (64, 80)
        assert 0 < len(found.boxes) == len(found.scores) == len(found.labels) <= 100
        assert found.boxes.isfinite().all()
        assert (found.boxes >= 0).all()
        assert (found.boxes <= torch.tensor([80.0, 64.0, 80.0, 64.0])).all()
        assert (found.masks is None) == (task == "detection")


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_takes_the_common_options(variant: str) -> None:
    known = accepted_keys(BACKBONES.get(variant))
    assert known is not None
    assert {"in_channels", "out_indices", "token", "frozen_stages", "drop_path"} <= known


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_describes_its_maps(variant: str) -> None:
    with torch.device("meta"):
        backbone = build(variant, whole=True).eval()
        x = torch.empty(1, backbone.in_channels, *(3, 97, 130)[-len(backbone.divisor) :])
        maps = backbone(x).maps
    assert [tuple(m.shape) for m in maps] == [expected_shape(s, 1, x.shape[2:]) for s in backbone.specs]
    assert backbone.specs == tuple(sorted(backbone.specs, key=lambda s: s.stride))


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_learns_in_every_parameter(variant: str) -> None:
    for options in ({}, {"token": True}):
        backbone = wake(build(variant, whole=variant not in HUGE, drop_path=0.0, **options)).train()
        loss(backbone(images(backbone))).backward()
        assert unlearnt(backbone) == idle(backbone)
