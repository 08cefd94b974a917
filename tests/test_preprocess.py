"""Normalising, padding, and mixing of images with their labels."""

import pytest
import torch
from torch import Tensor
from torchvision.tv_tensors import Image, Mask, Video

from densevit.errors import ConfigError
from densevit.preprocess import ImagePreprocessor
from densevit.structures import ClassTarget, Meta, Sample, SegTarget

CLASSES = 6
META = Meta("x.mp4", (4, 32, 32), (4, 32, 32))


def make_samples(count: int, size: int = 32) -> list[Sample]:
    """Return images whose pixels all say which they are: the n-th, of class n, has the value 40 n."""
    images = [torch.full((3, size, size), 40 * n, dtype=torch.uint8) for n in range(count)]
    meta = Meta("x.jpg", (size, size), (size, size))
    return [Sample(Image(image), ClassTarget(torch.tensor(n)), meta) for n, image in enumerate(images)]


def preprocessor(**options: float | int | None) -> ImagePreprocessor:
    return ImagePreprocessor(divisor=(32, 32), mean=(0, 0, 0), std=(40, 40, 40), **{"num_classes": CLASSES, **options})


def mixed(count: int, seed: int, **options: float) -> tuple[Tensor, Tensor]:
    """Return the inputs (N, 3, H, W) and the labels (N, K)."""
    torch.manual_seed(seed)
    out = preprocessor(**options)(make_samples(count), training=True)
    return out["inputs"], torch.stack([sample.target.label for sample in out["samples"]])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [2, 5])
def test_mixup_gives_labels_the_shares_of_the_pixels(count: int, seed: int) -> None:
    inputs, labels = mixed(count, seed, mixup=0.8)
    # the value of a pixel is the number of its class, so that the mean over shares is the value mixed
    assert torch.allclose(inputs.mean(dim=(1, 2, 3)), labels @ torch.arange(CLASSES).float(), atol=1e-5)
    assert torch.allclose(labels.sum(1), torch.ones(count))
    assert inputs.flatten(1).std(dim=1).max() < 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_gives_labels_the_shares_of_the_area(seed: int) -> None:
    inputs, labels = mixed(5, seed, cutmix=1.0)
    for image, label in zip(inputs, labels, strict=True):
        area = torch.stack([(image == n).float().mean() for n in range(CLASSES)])
        assert torch.allclose(area, label, atol=1e-5)


def test_every_image_is_the_partner_of_one() -> None:
    _, labels = mixed(5, 0, mixup=0.8)
    assert torch.allclose(labels.sum(0), torch.tensor([1.0, 1, 1, 1, 1, 0]))


def test_the_partner_is_drawn_so_that_repeats_of_an_image_are_kept_apart() -> None:
    pairs = set()
    for seed in range(60):
        _, labels = mixed(4, seed, mixup=1.0)
        pairs |= {tuple(row.nonzero().flatten().tolist()) for row in labels}
    assert {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)} <= pairs


def test_the_draw_depends_on_the_seed_only() -> None:
    one, other = (mixed(5, 3, mixup=0.8, cutmix=1.0) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(one[0], mixed(5, 4, mixup=0.8, cutmix=1.0)[0])


def test_mixup_and_cutmix_take_turns() -> None:
    cut = [mixed(4, seed, mixup=0.8, cutmix=1.0, switch_prob=0.25)[0] for seed in range(200)]
    share = sum((x == x.round()).all().item() for x in cut) / 200  # only cutmix leaves values as they were
    assert 0.15 < share < 0.37


def test_a_batch_is_mixed_with_the_given_probability_and_else_keeps_its_labels() -> None:
    labels = [mixed(4, seed, mixup=0.8, mix_prob=0.3)[1] for seed in range(200)]
    assert 0.2 < sum(label.is_floating_point() for label in labels) / 200 < 0.4
    assert all(sorted(label.tolist()) == [0, 1, 2, 3] for label in labels if not label.is_floating_point())


def test_nothing_is_mixed_in_evaluation_nor_alone() -> None:
    samples = make_samples(3)
    for data, training in ((samples, False), (samples[1:2], True)):
        out = preprocessor(mixup=0.8, cutmix=1.0)(data, training)
        assert [s.target.label.item() for s in out["samples"]] == [s.target.label.item() for s in data]
        assert [x[0, 0, 0].item() for x in out["inputs"]] == [s.target.label.item() for s in data]


def test_images_with_masks_are_not_mixed() -> None:
    meta = Meta("scene.jpg", (32, 32), (32, 32))
    scenes = [Sample(s.image, SegTarget(Mask(torch.zeros(32, 32))), meta) for s in make_samples(2)]
    with pytest.raises(ConfigError, match=r"class labels, not for SegTarget of scene\.jpg"):
        preprocessor(mixup=0.8)(scenes, training=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixup": 0.8, "num_classes": None}, "need num_classes"),
        ({"mixup": -1.0}, "must not be negative"),
        ({"cutmix": 1.0, "switch_prob": 1.5}, r"in \[0, 1\]"),
    ],
)
def test_impossible_mixing_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        preprocessor(**options)


@pytest.mark.parametrize("training", [False, True])
def test_channels_are_reversed_before_they_are_normalised(training: bool) -> None:
    image = torch.tensor([10, 20, 30], dtype=torch.uint8).view(3, 1, 1).expand(3, 32, 32)
    sample = Sample(Image(image), None, Meta("", (32, 32), (32, 32)))
    for bgr, expected in ((False, [9.0, 9.0, 9.0]), (True, [29.0, 9.0, -11.0])):
        model = ImagePreprocessor((32, 32), mean=(1, 11, 21), std=(1, 1, 1), bgr=bgr)
        assert model([sample], training)["inputs"][0][:, 0, 0].tolist() == expected


@pytest.mark.parametrize("sizes", [((32, 64), (32, 64)), ((40, 32), (32, 50))])
def test_a_batch_is_normalised_and_padded_with_the_mean_to_the_divisor(sizes: tuple[tuple[int, int], ...]) -> None:
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]
    samples = [Sample(Image(image), None, Meta("", image.shape[1:], image.shape[1:])) for image in images]
    model = ImagePreprocessor(divisor=(32, 32))
    inputs = model(samples, training=True)["inputs"]
    assert inputs.shape == (2, 3, 64 if sizes[0] != sizes[1] else 32, 64)
    for x, image in zip(inputs, images, strict=True):
        height, width = image.shape[1:]
        assert torch.equal(x[:, :height, :width], (image.float() - model.mean) / model.std)
        assert x[:, height:].abs().sum() == x[:, :, width:].abs().sum() == 0


def make_clips(count: int, sizes: tuple[int, int] = (32, 32)) -> list[Sample]:
    """Return clips of four frames; frame t of the n-th, of class n, has the value 40 n + t."""
    frames = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 3, *sizes)
    meta = Meta("x.mp4", (4, *sizes), (4, *sizes))
    return [Sample(Video(frames + 40 * n), ClassTarget(torch.tensor(n)), meta) for n in range(count)]


def clip_preprocessor(**options: float) -> ImagePreprocessor:
    return ImagePreprocessor(divisor=(1, 32, 32), mean=(0, 1, 2), std=(1, 1, 1), num_classes=CLASSES, **options)


def test_clips_are_normalised_by_channel_and_put_channels_first() -> None:
    for training in (True, False):
        inputs = clip_preprocessor()(make_clips(2, (40, 32)), training)["inputs"]
        assert [tuple(x.shape) for x in inputs] == [(3, 4, 64, 32) if training else (3, 4, 40, 32)] * 2
        for channel, frame in ((0, 0), (2, 3)):
            assert inputs[1][channel, frame, 0, 0].item() == 40 + frame - channel
    reversed_channels = ImagePreprocessor((1, 32, 32), mean=(0, 1, 2), std=(1, 1, 1), bgr=True)
    clip = Sample(Video(torch.arange(3, dtype=torch.uint8)[None, :, None, None].expand(4, 3, 32, 32)), None, META)
    assert reversed_channels([clip])["inputs"][0][:, 0, 0, 0].tolist() == [2, 0, -2]


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_all_frames_of_a_clip_are_mixed_alike(kind: str) -> None:
    torch.manual_seed(0)
    out = clip_preprocessor(**{kind: 1.0})(make_clips(4), training=True)
    x = out["inputs"][:, 0]  # whose mean is 0
    assert torch.allclose(x - x[:, :1], torch.arange(4.0)[None, :, None, None].expand_as(x), atol=1e-4)
    labels = torch.stack([sample.target.label for sample in out["samples"]])
    assert torch.allclose(x[:, 0].mean(dim=(1, 2)), 40 * labels @ torch.arange(CLASSES).float(), atol=1e-3)
    assert (labels > 0).sum(dim=1).max() == 2
