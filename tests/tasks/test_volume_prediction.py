"""Files, pictures and volumes in millilitres of predictions on volumes."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from densevit.data.plane_sheet import label_sheet, plane_sheet
from densevit.data.volume import read_volume
from densevit.errors import DataError
from densevit.structures import VolumeTarget
from densevit.tasks.medical import VolumePrediction
from densevit.tasks.medical.drawing import draw_labels

PALETTE = [(0, 0, 0), (200, 30, 30), (30, 200, 30), (30, 30, 200)]
CLASSES = ("background", "liver", "spleen", "aorta")
SPACING = (1.0, 2.0, 2.5)
VOXEL = 5e-3  # ml


@pytest.fixture
def prediction(tmp_path: Path) -> VolumePrediction:
    """Return a prediction for a file of 10 x 12 x 8 voxels, whose first axis points to the left."""
    affine = np.diag([-SPACING[0], SPACING[1], SPACING[2], 1])
    voxels = np.random.default_rng(0).normal(0, 100, (10, 12, 8)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "ct.nii.gz")
    mask = torch.zeros(10, 12, 8, dtype=torch.uint8)
    mask[2:5, 3:6, 1:7], mask[6:9] = 1, 3
    return VolumePrediction(mask, str(tmp_path / "ct.nii.gz"))


def test_labels_are_read_back_on_the_grid_of_the_file(prediction: VolumePrediction, tmp_path: Path) -> None:
    path = prediction.save(tmp_path / "folder" / "a.b")
    assert path.name == "a.b.nii.gz"
    assert np.array_equal(nibabel.load(path).affine, nibabel.load(prediction.like).affine)
    again = VolumePrediction.load(tmp_path / "folder" / "a.b")
    assert torch.equal(again.mask, prediction.mask)
    assert again.summary(CLASSES) == prediction.summary(CLASSES)


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"nothing")
    for name in ("a", "b"):
        with pytest.raises(DataError, match=rf"{name}\.nii\.gz"):
            VolumePrediction.load(tmp_path / name)


def test_the_summary_tells_millilitres_of_the_classes_that_occur(prediction: VolumePrediction) -> None:
    ml = prediction.summary(CLASSES)["ml"]
    assert ml == pytest.approx({"liver": 3 * 3 * 6 * VOXEL, "aorta": 3 * 12 * 8 * VOXEL})


def test_pictures_show_classes_where_they_are(prediction: VolumePrediction) -> None:
    sheet = plane_sheet(read_volume(prediction.like), SPACING)
    drawn = prediction.draw(sheet, CLASSES, PALETTE)
    labels = label_sheet(prediction.mask.numpy(), SPACING)
    changed = (drawn[:, : sheet.shape[1]] != sheet).any(-1)
    assert changed[labels > 0].mean() > 0.95
    assert not changed[labels == 0].mean() > 0.02, "numbers may reach beyond"
    legend = drawn[:, sheet.shape[1] :]
    assert (legend == PALETTE[3]).all(-1).any()
    assert not (legend == PALETTE[2]).all(-1).any()


def test_the_truth_is_drawn_alike_and_on_a_resized_sheet_too(prediction: VolumePrediction) -> None:
    sheet = plane_sheet(read_volume(prediction.like), SPACING)
    target = VolumeTarget(prediction.mask, torch.tensor(SPACING))
    width = sheet.shape[1]
    truth = prediction.draw_truth(sheet, target, CLASSES, PALETTE)
    assert np.array_equal(truth[:, :width], prediction.draw(sheet, CLASSES, PALETTE)[:, :width])
    half = np.ascontiguousarray(sheet[::2, ::2])
    drawn = prediction.draw_truth(half, target, CLASSES, PALETTE)[: len(half), : half.shape[1]]
    changed, labels = (drawn != half).any(-1), label_sheet(prediction.mask.numpy(), SPACING)[::2, ::2]
    assert (changed == (labels > 0)).mean() > 0.95


def test_regions_with_room_bear_their_number() -> None:
    image, ids = np.zeros((60, 120, 3), np.uint8), np.zeros((60, 120), np.uint8)
    ids[5:55, 5:55], ids[20:24, 80:84] = 2, 3  # the second is too small
    drawn = draw_labels(image, ids, [(2, "spleen"), (3, "aorta")], PALETTE)
    white = (drawn[:60, :120] > 200).all(-1)
    assert white[20:40, 20:40].any()
    assert not white[15:30, 75:90].any()
