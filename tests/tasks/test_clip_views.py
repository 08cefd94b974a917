"""Views of a video: which clips and crops there are, and what becomes of their scores."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from densevit.errors import ConfigError
from densevit.features import FeatureSpec
from densevit.structures import ClassTarget, Meta, Sample
from densevit.tasks.video import ClipViews, VideoHead

META = Meta("a.mp4", (4, 6, 6), (4, 6, 6))


def pixels(frames: int, height: int, width: int) -> Tensor:
    """Return a video ``(1, 3, T, H, W)`` whose channels are the frame, the row and the column."""
    axes = torch.meshgrid(torch.arange(frames), torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack(axes)[None].float()


def places(view: Tensor) -> tuple[list[float], list[float], list[float]]:
    """Return the frames, rows and columns of a view of `pixels`."""
    return view[0, 0, :, 0, 0].tolist(), view[0, 1, 0, :, 0].tolist(), view[0, 2, 0, 0].tolist()


@pytest.mark.parametrize(
    ("size", "crop_size", "rows", "columns"),
    [
        ((4, 8), None, [0, 0, 0], [0, 2, 4]),
        ((8, 4), None, [0, 2, 4], [0, 0, 0]),
        ((4, 7), None, [0, 0, 0], [0, 1, 3]),
        ((6, 8), 4, [1, 1, 1], [0, 2, 4]),
        ((8, 6), 4, [0, 2, 4], [1, 1, 1]),
        ((7, 7), 4, [1, 1, 1], [0, 1, 3]),
    ],
)
def test_three_crops_lie_along_the_longer_side(
    size: tuple[int, int], crop_size: int | None, rows: list[int], columns: list[int]
) -> None:
    views = ClipViews(crop_size=crop_size).views(pixels(2, *size))
    side = 4
    for view, row, column in zip(views, rows, columns, strict=True):
        assert places(view) == ([0, 1], list(range(row, row + side)), list(range(column, column + side)))


def test_a_single_crop_is_the_centre() -> None:
    (view,) = ClipViews(crop_size=4, crops=1).views(pixels(1, 6, 9))
    assert places(view)[1:] == ([1, 2, 3, 4], [2, 3, 4, 5])


def test_all_crops_of_a_clip_come_before_the_next_clip() -> None:
    views = ClipViews(frames=2, crop_size=4).views(pixels(6, 4, 8))
    found = [(places(view)[0], places(view)[2][0]) for view in views]
    assert found == [([t, t + 1], column) for t in (0, 2, 4) for column in (0, 2, 4)]


@pytest.mark.parametrize("size", [(4, 4), (3, 3)])
def test_an_input_that_is_no_larger_than_a_crop_is_one_view(size: tuple[int, int]) -> None:
    x = pixels(2, *size)
    (view,) = ClipViews(frames=2, crop_size=4).views(x)
    assert torch.equal(view, x)


def test_of_an_axis_that_is_shorter_than_a_crop_all_is_seen() -> None:
    views = ClipViews(crop_size=4).views(pixels(1, 3, 8))
    assert [places(view)[1:] for view in views] == [([0, 1, 2], list(range(c, c + 4))) for c in (0, 2, 4)]


def test_outputs_are_stacked_view_by_view() -> None:
    x = torch.cat([pixels(4, 4, 6), 10 + pixels(4, 4, 6)])
    outputs = ClipViews(frames=2)(lambda view: view.mean(dim=(2, 3, 4)), x)
    assert outputs.shape == (2, 6, 3)
    assert outputs[0, :, 0].tolist() == [0.5, 0.5, 0.5, 2.5, 2.5, 2.5]
    assert outputs[0, :, 2].tolist() == [1.5, 2.5, 3.5] * 2
    assert torch.equal(outputs[1], outputs[0] + 10)


def test_frames_that_are_no_whole_clips_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"5 frames are no whole clips of 2; give model\.inference\.frames"):
        ClipViews(frames=2).views(pixels(5, 4, 4))


@pytest.mark.parametrize("options", [{"crops": 0}, {"frames": -1}, {"crop_size": -4}])
def test_numbers_are_positive(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="ClipViews: its numbers are positive"):
        ClipViews(**options)


@pytest.mark.parametrize(
    ("last", "kept", "expected"),
    [
        ({"type": "CenterCrop", "size": 96}, 1, {"crop_size": 96}),
        ({"type": "CenterCrop", "size": (80, 96)}, 1, {"crop_size": 80}),
        ({"type": "Resize", "size": 96}, 2, {}),
    ],
)
def test_a_centre_crop_of_the_dataset_gives_way_to_the_views(
    last: dict[str, Any], kept: int, expected: dict[str, int]
) -> None:
    dataset = {"sampling": {"frames": 8}, "transforms": [{"type": "ShortSideResize", "sizes": 96}, last]}
    assert ClipViews.configure(dataset) == {"type": "ClipViews", "frames": 8, **expected}
    assert len(dataset["transforms"]) == kept


def head(loss: str = "softmax") -> VideoHead:
    return VideoHead((FeatureSpec(4, (1, 2, 2)),), num_classes=3, loss=loss).eval()


def samples(*labels: int) -> list[Sample]:
    return [Sample(torch.zeros(2, 3, 1, 1), ClassTarget(torch.tensor(label)), META) for label in labels]


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_the_scores_of_a_video_are_the_means_of_those_of_its_views(loss: str) -> None:
    logits = torch.randn(2, 6, 3)
    expected = logits.softmax(-1) if loss == "softmax" else logits.sigmoid()
    for prediction, views in zip(head(loss).predict(logits, [META, META]), expected, strict=True):
        assert torch.allclose(prediction.views, views)
        assert torch.allclose(prediction.scores, views.mean(dim=0))


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_a_clip_without_views_is_its_only_view(loss: str) -> None:
    logits = torch.randn(2, 3)
    single, viewed = head(loss).predict(logits, [META] * 2), head(loss).predict(logits[:, None], [META] * 2)
    for a, b in zip(single, viewed, strict=True):
        assert a.views.shape == (1, 3)
        assert torch.equal(a.scores, a.views[0])
        assert torch.equal(a.scores, b.scores)
    one, other = (head(loss).loss(x, samples(0, 2)) for x in (logits, logits[:, None]))
    assert one["loss_cls"].item() == pytest.approx(other["loss_cls"].item(), rel=1e-5)


def test_the_loss_of_several_views_is_that_of_their_mean_probability() -> None:
    logits, truth = torch.randn(2, 6, 3), torch.tensor([0, 2])
    mean = logits.softmax(-1).mean(dim=1)
    losses = head().loss(logits, samples(0, 2))
    assert losses["loss_cls"].item() == pytest.approx(F.nll_loss(mean.log(), truth).item(), rel=1e-5)
    assert losses["acc"].item() == (mean.argmax(1) == truth).float().mean().item()


def test_with_sigmoid_the_loss_of_several_views_is_binary() -> None:
    logits, truth = torch.randn(2, 6, 3), torch.tensor([0, 2])
    mean = logits.sigmoid().mean(dim=1)
    expected = F.binary_cross_entropy(mean, F.one_hot(truth, 3).float(), reduction="sum") / 2
    assert head("sigmoid").loss(logits, samples(0, 2))["loss_cls"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_loss_of_views_that_are_sure_is_finite() -> None:
    logits = torch.tensor([[[200.0, 0.0, 0.0]] * 2])
    for loss in ("softmax", "sigmoid"):
        for label in (0, 1):
            assert head(loss).loss(logits, samples(label))["loss_cls"].isfinite(), (loss, label)
