"""SegFormerHead: the folded algebra, the loss in chunks, predictions at the original size."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.tv_tensors import Mask

from densevit.backbones import mit_b0
from densevit.errors import ConfigError
from densevit.features import Features, FeatureSpec, Specs
from densevit.structures import Meta, Sample, SegTarget
from densevit.tasks.segmentation import SegFormerHead, SegPrediction, loss
from densevit.tasks.segmentation.head import argmax_resized
from densevit.tasks.segmentation.loss import resized_cross_entropy
from densevit.tasks.segmentation.prediction import overlay

PYRAMID = tuple(FeatureSpec(c, (s, s)) for c, s in ((8, 4), (12, 8), (16, 16), (20, 32)))


def head(
    specs: Specs = PYRAMID, num_classes: int = 5, dtype: torch.dtype = torch.float64, **options: Any
) -> SegFormerHead:
    """Return a head all of whose tensors are random, statistics of batch norm included."""
    torch.manual_seed(0)
    made = SegFormerHead(specs, num_classes, **{"channels": 6, "dropout": 0, **options}).to(dtype)
    for key, value in made.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if key.endswith("running_var") else value.normal_()
    return made


def features(specs: Specs = PYRAMID, dtype: torch.dtype = torch.float64, batch: int = 2, size: int = 64) -> Features:
    torch.manual_seed(1)
    sizes = [(-(-size // s.stride[0]), -(-2 * size // s.stride[1])) for s in specs]
    return Features(tuple(torch.randn(batch, s.channels, *n, dtype=dtype) for s, n in zip(specs, sizes, strict=True)))


def unfolded(head: SegFormerHead, maps: Sequence[Tensor]) -> Tensor:
    """Compute what the paper describes: project, resize, concatenate from coarse to fine, fuse, classify."""
    levels = []
    for i, x in enumerate(maps, start=1):
        linear = getattr(head, f"linear_c{i}")["proj"]
        y = F.conv2d(x, linear.weight[:, :, None, None], linear.bias)
        levels.append(F.interpolate(y, maps[0].shape[2:], mode="bilinear", align_corners=False))
    x = head.linear_fuse.bn(head.linear_fuse.conv(torch.cat(levels[::-1], dim=1)))
    return head.linear_pred(head.dropout(x.relu()))


def samples(masks: Sequence[Tensor], input_size: tuple[int, int] | None = None) -> list[Sample]:
    metas = [Meta("", tuple(m.shape), input_size or tuple(m.shape)) for m in masks]
    return [Sample(torch.empty(0), SegTarget(m), meta) for m, meta in zip(masks, metas, strict=True)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("num_levels", [1, 2, 4])
def test_folding_changes_neither_logits_nor_gradients(training: bool, num_levels: int) -> None:
    folded = head(PYRAMID[-num_levels:]).train(training)
    plain = copy.deepcopy(folded)
    x = features(PYRAMID[-num_levels:])
    a, b = folded(x), unfolded(plain, x.maps)
    torch.testing.assert_close(a, b)
    slope = torch.randn_like(a)
    a.backward(slope)
    b.backward(slope)
    for (name, p), q in zip(folded.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)
    for (name, p), q in zip(folded.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(p, q, msg=name)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_any_layout_and_batch_give_the_same(batch: int, layout: torch.memory_format) -> None:
    h, x = head().eval(), features(batch=batch)
    maps = tuple(m.contiguous(memory_format=layout) for m in x.maps)
    torch.testing.assert_close(h(Features(maps)), unfolded(h, x.maps))


def test_levels_of_equal_or_odd_strides_are_taken() -> None:
    specs = tuple(FeatureSpec(8, (s, s)) for s in (7, 14, 14))
    h, x = head(specs).eval(), features(specs, size=97)
    torch.testing.assert_close(h(x), unfolded(h, x.maps))


def test_cost_is_a_fraction_of_the_official_one() -> None:
    with torch.device("meta"):
        backbone = mit_b0().eval()
        h = SegFormerHead(backbone.specs, 150).eval()
        x = torch.empty(1, 3, 512, 512)
        with FlopCounterMode(display=False) as whole:
            maps = backbone(x)
            unfolded(h, maps.maps)
        with FlopCounterMode(display=False) as ours:
            h(maps)
        with FlopCounterMode(display=False) as official:
            unfolded(h, maps.maps)
    assert whole.get_total_flops() / 2e9 == pytest.approx(8.388, abs=1e-3)
    assert ours.get_total_flops() < official.get_total_flops() / 5


def test_parameters_are_the_official_ones_but_for_the_unused_classifier() -> None:
    with torch.device("meta"):
        backbone = mit_b0()
        h = SegFormerHead(backbone.specs, 150)
    count = sum(p.numel() for m in (backbone, h) for p in m.parameters())
    assert count == 3_772_044 - (128 * 150 + 150)


def test_compiles_and_exports() -> None:
    h, x = head(dtype=torch.float32).eval(), features(dtype=torch.float32)
    with torch.no_grad():
        expected = h(x)
        torch.testing.assert_close(torch.compile(h, backend="aot_eager", fullgraph=True)(x), expected)
        torch.testing.assert_close(torch.export.export(h, (x,)).module()(x), expected)


def test_bf16_autocast_is_near_and_trains_every_parameter() -> None:
    h, x = head(dtype=torch.float32).train(), features(dtype=torch.float32)
    expected = h(x)
    with torch.autocast("cpu", torch.bfloat16):
        logits = h(x)
    assert (logits.float() - expected).abs().max() < 0.1 * expected.abs().max()
    losses = h.loss(logits, samples([torch.randint(5, (64, 128)) for _ in range(2)]))
    assert losses["loss_seg"].dtype == torch.float32
    losses["loss_seg"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in h.parameters())


# Loss


def reference(logits: Tensor, masks: Tensor, weights: Tensor | None = None) -> Tensor:
    size = [4 * n for n in logits.shape[2:]]
    up = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    return F.cross_entropy(up, masks, weights, ignore_index=255)


@pytest.mark.parametrize("chunk", [1, 20_000, 1 << 30])
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_is_cross_entropy_of_resized_logits(chunk: int, weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "_CHUNK", chunk)
    weights = [0.5, 1.0, 2.0, 0.0, 3.0] if weighted else None
    h = head(class_weights=weights)
    torch.manual_seed(2)
    logits, masks = torch.randn(2, 5, 16, 32, dtype=torch.float64, requires_grad=True), torch.randint(5, (2, 64, 128))
    masks[:, 10:20] = 255
    expected = reference(logits, masks, None if weights is None else torch.tensor(weights, dtype=torch.float64))
    (slope,) = torch.autograd.grad(3 * expected, logits)
    losses = h.loss(logits, samples(list(masks)))
    torch.testing.assert_close(losses["loss_seg"], expected)
    torch.testing.assert_close(torch.autograd.grad(3 * losses["loss_seg"], logits)[0], slope)


def test_accuracy_is_that_of_labelled_pixels() -> None:
    torch.manual_seed(2)
    logits, mask = torch.randn(1, 5, 16, 32, dtype=torch.float64, requires_grad=True), torch.randint(5, (64, 128))
    mask[:32] = 255
    accuracy = head().loss(logits, samples([mask]))["acc_seg"]
    right = F.interpolate(logits, (64, 128), mode="bilinear")[0].argmax(0)[32:] == mask[32:]
    assert accuracy.item() == pytest.approx(right.double().mean().item())
    assert not accuracy.requires_grad


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_beyond_smaller_masks_nothing_counts(dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    logits = torch.randn(2, 5, 16, 32, dtype=torch.float64)
    small, large = torch.randint(5, (50, 61)).to(dtype), torch.randint(5, (64, 128)).to(dtype)
    padded = torch.full((2, 64, 128), 255)
    padded[0, :50, :61], padded[1] = small, large
    losses = head().loss(logits, samples([Mask(small), Mask(large)]))
    torch.testing.assert_close(losses["loss_seg"], reference(logits, padded))


def test_a_negative_ignored_label_may_come_with_masks_of_bytes() -> None:
    logits = torch.randn(1, 5, 16, 32, dtype=torch.float64)
    mask = torch.randint(5, (40, 128), dtype=torch.uint8)
    padded = torch.full((1, 64, 128), 255)
    padded[0, :40] = mask
    torch.testing.assert_close(
        head(ignore_index=-100).loss(logits, samples([mask]))["loss_seg"], reference(logits, padded)
    )


def test_masks_of_the_files_size_are_brought_to_that_of_the_input() -> None:
    logits, mask = torch.randn(1, 5, 16, 32, dtype=torch.float64), torch.randint(5, (64, 128), dtype=torch.uint8)
    larger = mask.repeat_interleave(3, 0).repeat_interleave(2, 1)
    losses = head().loss(logits, samples([Mask(larger)], input_size=(64, 128)))
    torch.testing.assert_close(losses["loss_seg"], reference(logits, mask[None].long()))


def test_without_a_labelled_pixel_the_loss_is_zero_and_connected() -> None:
    h, x = head().train(), features()
    losses = h.loss(h(x), samples([torch.full((64, 128), 255)] * 2))
    losses["loss_seg"].backward()
    assert losses["loss_seg"].item() == losses["acc_seg"].item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in h.parameters())


def test_masks_larger_than_the_input_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be padded"):
        head().loss(torch.randn(1, 5, 16, 32), samples([torch.zeros(65, 128)]))


def test_logits_at_the_size_of_the_input_are_not_enlarged_again() -> None:
    logits, mask = torch.randn(1, 5, 64, 128, dtype=torch.float64), torch.randint(5, (64, 128))
    losses = head().loss(logits, samples([mask]))
    torch.testing.assert_close(losses["loss_seg"], F.cross_entropy(logits, mask[None]))
    (prediction,) = head().predict(logits, [Meta("", (64, 128), (64, 128))])
    assert torch.equal(prediction.mask.long(), logits[0].argmax(0))


def test_log_probabilities_of_minus_infinity_at_ignored_pixels_do_no_harm() -> None:
    logits, mask = torch.randn(1, 5, 64, 128), torch.randint(1, 5, (64, 128))
    logits[:, 0] = float("-inf")
    mask[:9] = 255
    assert head().loss(logits, samples([mask]))["loss_seg"].isfinite()


def test_the_loss_compiles() -> None:
    logits, target = torch.randn(1, 5, 16, 32, requires_grad=True), torch.randint(5, (1, 64, 128))
    compiled = torch.compile(resized_cross_entropy, backend="aot_eager", fullgraph=True)
    (a, _), (b, _) = compiled(logits, target, 255), resized_cross_entropy(logits, target, 255)
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(*(torch.autograd.grad(x, logits)[0] for x in (a, b)))


def test_class_weights_must_match_the_classes() -> None:
    with pytest.raises(ConfigError, match="5 numbers, not 2"):
        head(class_weights=[1.0, 2.0])


# Prediction


@pytest.mark.parametrize("num_classes", [1, 5, 16, 37, 300])
def test_predictions_are_exactly_the_argmax_of_resized_logits(num_classes: int) -> None:
    torch.manual_seed(0)
    logits = torch.randn(num_classes, 16, 21)
    up = F.interpolate(logits[None], (61, 83), mode="bilinear", align_corners=False)[0]
    mask = argmax_resized(logits, (61, 83))
    assert torch.equal(mask.long(), up.argmax(0))
    assert mask.dtype == (torch.uint8 if num_classes <= 255 else torch.int16)


def test_low_precision_does_not_coarsen_the_interpolation() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 16, 21).bfloat16()
    up = F.interpolate(logits[None].float(), (61, 83), mode="bilinear", align_corners=False)[0]
    assert torch.equal(argmax_resized(logits, (61, 83)).long(), up.argmax(0))


def test_ties_go_to_the_first_class() -> None:
    assert not argmax_resized(torch.zeros(40, 4, 4), (8, 8)).any()


def test_padding_is_cut_and_each_image_gets_its_own_size() -> None:
    h = head()
    logits = torch.randn(2, 5, 16, 32)
    metas = [Meta("", (100, 90), (62, 33)), Meta("", (64, 128), (64, 128))]
    first, second = h.predict(logits, metas)
    up = F.interpolate(logits[:1, :, :16, :9].contiguous(), (100, 90), mode="bilinear", align_corners=False)
    assert torch.equal(first.mask.long(), up[0].argmax(0))
    assert second.mask.shape == (64, 128)


@pytest.fixture
def prediction() -> SegPrediction:
    mask = torch.zeros(40, 60, dtype=torch.uint8)
    mask[:10] = 2
    return SegPrediction(mask)


CLASSES, PALETTE = ("wall", "floor", "sky"), [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def test_overlay_colours_known_classes_only() -> None:
    image = np.full((1, 4, 3), 100, np.uint8)
    mask = np.array([[0, 2, 3, 255]])
    picture = overlay(image, mask, PALETTE, opacity=0.5)
    assert picture[0].tolist() == [[178, 50, 50], [50, 50, 178], [100, 100, 100], [100, 100, 100]]
    assert (image == 100).all()


def test_a_picture_shows_the_overlay_and_a_legend_of_what_is_in_it(prediction: SegPrediction) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    picture = prediction.draw(image, CLASSES, PALETTE)
    assert picture.dtype == np.uint8
    assert np.array_equal(picture[:40, :60], overlay(image, prediction.mask.numpy(), PALETTE))
    legend = {tuple(colour) for colour in picture[:, 60:].reshape(-1, 3).tolist()}
    assert {(255, 0, 0), (0, 0, 255), (0, 0, 0)} <= legend
    assert (0, 255, 0) not in legend


def test_a_legend_of_many_classes_stays_finite() -> None:
    mask = torch.arange(100, dtype=torch.uint8).repeat(100, 1)
    picture = SegPrediction(mask).draw(
        np.zeros((100, 100, 3), np.uint8), [str(i) for i in range(100)], [(9, 9, 9)] * 100
    )
    assert picture.shape[0] < 700


def test_the_truth_is_drawn_like_a_prediction(prediction: SegPrediction) -> None:
    image, truth = np.zeros((40, 60, 3), np.uint8), SegTarget(Mask(prediction.mask))
    assert np.array_equal(
        SegPrediction.draw_truth(image, truth, CLASSES, PALETTE), prediction.draw(image, CLASSES, PALETTE)
    )


@pytest.mark.parametrize(("dtype", "value"), [(torch.uint8, 200), (torch.int16, 300)])
def test_masks_are_saved_as_class_indices(dtype: torch.dtype, value: int, tmp_path: Path) -> None:
    path = SegPrediction(torch.full((3, 4), value, dtype=dtype)).save(tmp_path / "new" / "image.v2")
    assert path.name == "image.v2.png"
    assert np.array_equal(np.asarray(Image.open(path)), np.full((3, 4), value))


def test_a_summary_gives_the_share_of_each_class(prediction: SegPrediction) -> None:
    shares = prediction.summary(CLASSES)["shares"]
    assert list(shares.items()) == [("wall", 0.75), ("sky", 0.25)]
