"""Pictures and files of predictions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.tv_tensors import Mask

from densevit.data.readers import read_mask
from densevit.structures import SegTarget
from densevit.tasks.segmentation.prediction import SegPrediction, overlay

PALETTE = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
CLASSES = ["wall", "building", "a class with a rather long name"]


def test_an_overlay_tints_classes_and_leaves_the_unlabelled() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    mask = np.array([[0, 1], [2, 255]], np.uint8)
    tinted = overlay(image, mask, PALETTE, opacity=0.5)
    assert tinted[0, 0].tolist() == [178, 50, 50]
    assert tinted[1, 1].tolist() == [100, 100, 100]
    assert image[0, 0].tolist() == [100, 100, 100]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
def test_a_mask_is_read_back_as_it_was_written(tmp_path: Path, dtype: torch.dtype) -> None:
    high = 255 if dtype == torch.uint8 else 400
    mask = torch.randint(0, high, (20, 30)).to(dtype)
    path = SegPrediction(mask).save(tmp_path / "folder" / "a.b")
    assert path.name == "a.b.png"
    assert torch.equal(read_mask(path).as_subclass(torch.Tensor).long(), mask.long())


def test_a_drawing_has_a_legend_of_the_classes_that_occur() -> None:
    image = np.full((40, 200, 3), 100, np.uint8)
    drawn = SegPrediction(torch.tensor([0, 2], dtype=torch.uint8).repeat(40, 100)).draw(image, CLASSES, PALETTE)
    legend = drawn[:, 200:]
    assert (legend == PALETTE[0]).all(-1).any()
    assert (legend == PALETTE[2]).all(-1).any()
    assert not (legend == PALETTE[1]).all(-1).any()


def test_the_truth_is_drawn_in_the_same_way() -> None:
    image = np.full((40, 64, 3), 100, np.uint8)
    mask = torch.randint(0, 3, (40, 64), dtype=torch.uint8)
    prediction = SegPrediction(mask)
    truth = prediction.draw_truth(image, SegTarget(Mask(mask)), CLASSES, PALETTE)
    assert np.array_equal(truth, prediction.draw(image, CLASSES, PALETTE))


def test_the_summary_tells_the_share_of_each_class() -> None:
    mask = torch.tensor([[0, 0, 0, 2]], dtype=torch.uint8)
    assert SegPrediction(mask).summary(CLASSES) == {"shares": {"wall": 0.75, CLASSES[2]: 0.25}}
