"""Drawn volumes are the same for a seed, varied, whole, and in a layout that the dataset of volumes reads."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from densevit.data.phantoms import CLASSES, draw_phantom, make_phantoms
from densevit.errors import DataError


def drawn(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a volume and its labels with axes in RAS."""
    volumes = draw_phantom(np.random.default_rng(number))
    image, ids = (np.asarray(nibabel.as_closest_canonical(volume).dataobj) for volume in volumes)
    return image, ids


def test_organs_lie_where_they_do_in_a_patient_whatever_the_axes_of_the_file() -> None:
    for number in range(12):
        image, ids = drawn(number)
        assert image.dtype == np.int16
        assert 32 <= min(image.shape) <= max(image.shape) <= 40
        places = [np.argwhere(ids == i) / np.array(ids.shape) for i in range(1, len(CLASSES))]
        assert min(map(len, places)) > 150
        assert places[0][:, 0].mean() > 0.6, "the liver is on the right"
        assert places[1][:, 1].mean() < 0.4, "the kidneys are at the back"
        assert np.std(places[1][:, 0]) > 0.15, "there are two of them"


def test_volumes_differ_in_grid_and_orientation() -> None:
    volumes = [draw_phantom(np.random.default_rng(number))[0] for number in range(20)]
    assert len({volume.shape for volume in volumes}) > 15
    assert len({nibabel.aff2axcodes(volume.affine) for volume in volumes}) > 3
    assert np.ptp([nibabel.affines.voxel_sizes(volume.affine) for volume in volumes]) > 0.8


def test_intensity_alone_does_not_tell_the_kidneys() -> None:
    image, ids = drawn(0)
    bright = image > 110
    assert (ids[bright] == 0).mean() > 0.3


def test_files_are_made_once_mended_and_cleared(tmp_path: Path) -> None:
    make_phantoms(tmp_path, train=2, val=1)
    described = json.loads((tmp_path / "dataset.json").read_text())
    assert described["labels"] == {str(i): name for i, name in enumerate(CLASSES)}
    assert [len(described[name]) for name in ("training", "validation")] == [2, 1]
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    damaged, surplus = tmp_path / described["training"][1]["image"], tmp_path / "imagesTr/training_00007.nii.gz"
    damaged.write_bytes(before[damaged][0][:-9])
    surplus.write_bytes(b"")
    make_phantoms(tmp_path, train=2, val=1)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file()}
    written = {path for path in before if before[path] != after[path]}
    assert written <= {damaged, tmp_path / "labelsTr" / damaged.name}
    assert {path: content for path, (content, _) in before.items()} == {p: content for p, (content, _) in after.items()}


def test_other_volumes_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "imagesTr/mine.nii.gz").write_bytes(b"")
    with pytest.raises(DataError, match="were not generated here"):
        make_phantoms(tmp_path, train=1, val=1)
