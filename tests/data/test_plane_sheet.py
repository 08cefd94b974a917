"""Slices of volumes are in proportion, the right way round, and labels lie where their voxels are."""

import numpy as np
import pytest
import torch

from densevit.data.plane_sheet import label_sheet, labelled_slices, plane_sheet


def coloured(sheet: np.ndarray, label: int) -> np.ndarray:
    """Return (top, left, bottom, right) of what has a label."""
    rows, columns = np.nonzero(sheet == label)
    return np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])


def test_labels_lie_where_their_voxels_are() -> None:
    mask = torch.zeros(20, 30, 24, dtype=torch.uint8)
    mask[4:9, 10:18, 3:20] = 1
    spacing = (1.0, 0.8, 2.5)
    sheet = plane_sheet(mask[None].float(), spacing)
    labels = label_sheet(mask.numpy(), spacing)
    assert labels.shape == sheet.shape[:2]
    bright = sheet[..., 0] > 128
    bright[[row for row in range(len(bright)) if not labels[row].any()]] = False  # captions
    assert (bright == (labels > 0)).mean() > 0.98
    assert labels.any()


def test_slices_are_in_proportion_whatever_the_voxels() -> None:
    volume = torch.ones(1, 10, 20, 5)
    volume[..., 0, 0, 0] = 0
    height, width = plane_sheet(volume, (2.0, 1.0, 4.0)).shape[:2]  # a cube of 20 mm
    assert (height, width) == plane_sheet(torch.ones(1, 7, 7, 7), (3.0, 3.0, 3.0)).shape[:2]


def test_the_first_axis_points_to_the_right_and_the_second_up() -> None:
    mask = np.zeros((10, 10, 10), np.uint8)
    mask[8:, :2, :2] = 1  # far along the first axis
    mask[:2, 8:, :2] = 2
    mask[:2, :2, 8:] = 3
    low, high = [0], [9]
    across_last = label_sheet(mask, (1, 1, 1), [low, low, low])
    third = len(across_last) // 3
    axial, coronal, sagittal = across_last[:third], across_last[third : 2 * third], across_last[2 * third :]
    assert coloured(axial, 1)[1] > coloured(axial, 2)[1]
    assert coloured(axial, 2)[0] < coloured(axial, 1)[0]
    assert coloured(coronal, 3)[0] < coloured(coronal, 1)[0]
    assert coloured(sagittal, 3)[0] < coloured(sagittal, 2)[0]
    assert 3 in label_sheet(mask, (1, 1, 1), [low, low, high])[:third]


def test_chosen_slices_share_out_what_is_labelled() -> None:
    mask = np.zeros((40, 40, 40), np.uint8)
    assert labelled_slices(mask) is None
    mask[10:30, 5, 30:33] = 2
    assert labelled_slices(mask) == [[12, 17, 22, 27], [5], [30, 31, 32]]
    assert label_sheet(mask, (1, 1, 1), labelled_slices(mask)).any()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 50, 60), (300, 2, 3)])
def test_thin_volumes_have_a_sheet(shape: tuple[int, int, int]) -> None:
    assert plane_sheet(torch.rand(2, *shape), (1.0, 1.0, 1.0)).ndim == 3
    assert plane_sheet(torch.zeros(1, *shape), (1.0, 1.0, 1.0)).max() > 128, "captions"


def test_a_single_bright_voxel_does_not_make_the_rest_black() -> None:
    volume = torch.rand(1, 20, 20, 20)
    volume[0, 10, 10, 10] = 1e6
    assert plane_sheet(volume, (1, 1, 1)).mean() > 50
