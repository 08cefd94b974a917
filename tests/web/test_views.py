"""What the page shows of predictions, without the page."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from densevit.data.video import video_info
from densevit.palette import distinct_colours
from densevit.predictor import Predictor
from densevit.tasks.detection.prediction import DetPrediction
from densevit.tasks.medical.prediction import VolumePrediction
from densevit.tasks.segmentation.prediction import SegPrediction
from densevit.web.predicting import predict
from densevit.web.views.classification import ClassificationView
from densevit.web.views.detection import DetectionView
from densevit.web.views.markup import html_table, paragraph
from densevit.web.views.picture_size import display_size
from densevit.web.views.segmentation import SegmentationView
from densevit.web.views.video import VideoView, is_longer_than_a_window, sliding
from densevit.web.views.volume import VolumeView

CLASSES = ["road", "sky", "a <b>"]
GREY = np.full((48, 64, 3), 90, np.uint8)


def result_of(found: Any, image: np.ndarray = GREY) -> Any:
    """Return a result as a predictor of images gives it."""
    palette = distinct_colours(len(CLASSES))
    predictor = SimpleNamespace(draw_input=lambda source: image, palette=palette)
    return SimpleNamespace(prediction=found, predictor=predictor, source=None, classes=CLASSES)


def halves() -> Any:
    """Return a mask of roads on the left and sky on the right of an image."""
    mask = torch.zeros(48, 64, dtype=torch.uint8)
    mask[:, 32:] = 1
    return SegPrediction(mask)


def test_a_transparent_mask_leaves_the_image_and_an_opaque_one_its_colours() -> None:
    view = SegmentationView(result_of(halves()))
    clear, opaque = view.picture(0), view.picture(1)
    assert (clear == view.image).all()
    assert [tuple(opaque[20, x]) for x in (20, 620)] == distinct_colours(2)
    assert clear.shape == (480, 640, 3)  # small images are enlarged


def test_one_class_can_be_shown_alone() -> None:
    view = SegmentationView(result_of(halves()))
    picture = view.picture(1, only="sky")
    assert (picture[:, :310] == view.image[:, :310]).all()
    assert tuple(picture[20, 620]) == distinct_colours(2)[1]


def test_regions_bear_the_number_that_the_legend_has() -> None:
    view = SegmentationView(result_of(halves()))
    white = (view.picture(1) > 240).all(-1)
    assert white[:, 40:300].any()
    assert white[:, 340:600].any()
    legend = view.legend()
    assert re.findall(r"</span>(\d)</td><td>(\w+)</td><td class=\"right\">([\d.]+%)", legend) == [
        ("0", "road", "50.0%"),
        ("1", "sky", "50.0%"),
    ]


def test_names_of_classes_are_no_html() -> None:
    mask = torch.full((48, 64), 2, dtype=torch.uint8)
    mask[0, 0] = 1
    legend = SegmentationView(result_of(SegPrediction(mask))).legend()
    assert "a &lt;b&gt;" in legend
    assert "<b>" not in legend
    assert "&lt; 0.1%" in legend
    assert "<i>" not in paragraph("<i>", "problem")


def objects() -> DetPrediction:
    boxes = torch.tensor([[2.0, 3, 20, 30], [30, 4, 60, 40]])
    return DetPrediction(boxes, torch.tensor([0.9, 0.2]), torch.tensor([0, 2]), (48, 64))


def test_a_threshold_hides_objects_in_picture_and_table() -> None:
    view = DetectionView(result_of(objects()))
    drawn = [(view.picture(score) != view.image).any(-1).sum() for score in (0.95, 0.5, 0.1)]
    assert drawn[0] == 0 < drawn[1] < drawn[2]
    assert view.picture(0.1).shape == (480, 640, 3)
    assert "2, 3 to 20, 30" in view.table(0.5)
    assert [view.table(score).count("<tr>") for score in (0.5, 0.1)] == [2, 3]
    assert "No object has a score of 0.95 or more; 2 have less." in view.table(0.95)


@pytest.mark.parametrize("size", [(10, 20), (700, 900), (3000, 10)])
def test_pictures_are_neither_tiny_nor_huge_and_keep_their_proportions(size: tuple[int, int]) -> None:
    height, width = display_size(*size)
    assert 640 <= max(height, width) <= 1280
    assert height / width == pytest.approx(size[0] / size[1], rel=0.2 if min(size) == 10 else 0.01)


def volume_view(axes: str) -> VolumeView:
    """Return the view of a volume stored along ``axes``, in which the right front is class 1 and the top class 2."""
    ids = np.zeros((20, 30, 40), np.uint8)
    ids[12:, 20:, :30], ids[..., 35:] = 1, 2
    ras = nibabel.Nifti1Image(ids, np.diag([2.0, 1.0, 1.0, 1.0]))
    turns = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(axes)
    )
    stored = ras.as_reoriented(turns)
    mask = torch.from_numpy(np.ascontiguousarray(np.asarray(stored.dataobj)))
    result = result_of(VolumePrediction(mask, stored))
    result.source = SimpleNamespace(value=stored)
    result.predictor.read = lambda source: mask[None].float()
    return VolumeView(result)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SPL"])
def test_slices_show_right_front_and_top_wherever_they_are_in_the_file(axes: str) -> None:
    view = volume_view(axes)
    assert view.shape == (20, 30, 40)
    assert view.spacing == pytest.approx([2, 1, 1])
    assert view.slices("axial") == 40
    axial, coronal = view.picture("axial", 10, 1), view.picture("coronal", 25, 1)
    assert axial.shape == (480, 640, 3)  # 40 mm across, 30 mm up
    assert coronal.shape == (640, 640, 3)
    first, second = distinct_colours(3)[1:]
    assert tuple(axial[50, 560]) == first  # front right
    assert [(axial[y, x] == axial[y, x, 0]).all() for y, x in ((50, 60), (440, 560))] == [True, True]  # grey
    assert [tuple(coronal[30, x]) for x in (60, 560)] == [second, second]  # top
    assert tuple(coronal[600, 560]) == first


def test_a_volume_opens_at_the_slice_with_the_most() -> None:
    view = volume_view("RAS")
    assert view.fullest("axial") == 36  # counted from 1
    assert view.fullest("sagittal") == 13
    assert re.findall(r"([\d.]+)</td></tr>", view.table()) == ["4.8", "6"]
    assert (view.picture("axial", 99, 0) == view.picture("axial", 40, 0)).all()


def test_a_long_video_is_classified_over_time(
    predictor_of: Callable[[str], Predictor], input_of: Callable[[str], Path]
) -> None:
    whole: Any = predictor_of("video")
    windows, path = sliding(whole), input_of("video")
    assert whole.windows is None
    assert is_longer_than_a_window(path, windows)
    found = predict(windows, path)
    view = VideoView(found.result, found.folder)
    assert list(found.seconds) == ["reading and model"]
    assert view.timeline is not None
    assert "0.00" in view.segments()
    assert sum(view.scores.values()) == pytest.approx(1, abs=1e-4)
    assert video_info(view.video).frames == video_info(path).frames == 32
    assert view.seconds == pytest.approx(32 / 15, abs=0.05)

    clip = predict(whole, path)
    assert VideoView(clip.result, clip.folder).timeline is None
    assert list(clip.seconds) == ["reading", "model"]


def test_an_image_is_classified(predictor_of: Callable[[str], Predictor], input_of: Callable[[str], Path]) -> None:
    view = ClassificationView(predict(predictor_of("classification"), input_of("classification")).result)
    scores = list(view.scores.values())
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    assert view.picture().shape == (512, 640, 3)


def test_columns_of_numbers_go_to_the_right() -> None:
    html = html_table(("class", "share"), [("2nd", "5%"), ("sky", "< 1%")])
    assert re.findall(r'<td( class="right")?>', html) == ["", ' class="right"', "", ' class="right"']
