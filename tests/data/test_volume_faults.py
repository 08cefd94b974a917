"""What is no faithful volume is refused by a `DataError` that names the file and the way out, whatever the damage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from densevit.data.volume import read_labels, read_volume, volume_header, write_labels
from densevit.errors import DataError

VOXELS = np.random.default_rng(0).integers(0, 50, (6, 5, 4)).astype(np.int16)
RGB = np.zeros((6, 5, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))


def content(voxels: np.ndarray = VOXELS, **fields: Any) -> bytes:
    """Return a file whose header has other values in some fields."""
    whole = nibabel.Nifti1Image(voxels, np.eye(4)).to_bytes()
    header = nibabel.Nifti1Header(whole[:348])
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + whole[348:]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "an empty file"),
        (b"\x89PNG\r\n" * 100, "not a NIfTI file; convert"),
        (content()[:100], "not a NIfTI file"),
        (bytes(128) + b"DICM" + bytes(300), "DICOM; .*dcm2niix"),
        (content(magic=b"ni1"), "save it as one"),
        (content(magic=b""), "damaged or unreadable .*magic"),
        (content()[:-1], r"truncated, 591 of 592 bytes"),
        (content(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]), "truncated, 592 of 54000000000352"),
        (content(np.zeros((6, 5, 4, 3), np.int16)), r"has 4 axes \(6 x 5 x 4 x 3\).*four_to_three"),
        (content(np.zeros((6, 5, 4, 1, 3), np.int16)), "has 5 axes"),
        (content(np.zeros((6, 5), np.int16)), "is 6 x 5, but a volume has 3 axes"),
        (content(np.zeros((6, 0, 5), np.int16)), "is 6 x 0 x 5, but"),
        (content(VOXELS.astype(np.complex64)), "complex64 are no intensities"),
        (content(RGB), "are no intensities"),
        (content(datatype=1, bitpix=1), "damaged or unreadable"),
        (content(srow_x=[1, 0.1, 0, 0]), "not at right angles.*resample"),
        (content(srow_x=[1, 1, 0, 0], srow_y=[0, 0, 0, 0]), "not at right angles|places no voxels"),
        (content(srow_y=[0, 0, 0, 0]), "places no voxels; mend sform"),
        (content(srow_x=[np.nan, 0, 0, 0]), "places no voxels"),
    ],
)
@pytest.mark.parametrize("read", [read_volume, read_labels])
def test_what_is_no_volume_is_refused(tmp_path: Path, read: Callable[[Path], Any], data: bytes, message: str) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"a\.nii: .*{message}"):
        read(path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_voxels_that_are_not_finite_are_counted(tmp_path: Path, bad: float) -> None:
    voxels = VOXELS.astype(np.float64)
    voxels[0, 0, :2] = bad
    (tmp_path / "a.nii").write_bytes(content(voxels))
    with pytest.raises(DataError, match=r"a\.nii: 2 voxels are not finite"):
        read_volume(tmp_path / "a.nii")


def test_missing_files_and_dicom_folders_are_named_with_the_converter(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.nii: no such file"):
        read_volume(tmp_path / "a.nii")
    with pytest.raises(DataError, match=r"a folder, no volume; convert .*dcm2niix"):
        volume_header(tmp_path)
    (tmp_path / "1.dcm").write_bytes(b"any")
    with pytest.raises(DataError, match=r"1\.dcm: DICOM; convert .*dcm2niix"):
        read_volume(tmp_path / "1.dcm")


def damaged(intact: bytes, seed: int) -> bytes:
    """Return the content cut off, or with a few other bytes, half of the time in the header."""
    rng = np.random.default_rng(seed)
    if seed % 4 == 0:
        return intact[: rng.integers(len(intact))]
    changed = bytearray(intact)
    for _ in range(rng.integers(1, 6)):
        changed[rng.integers(min(352, len(intact)) if seed % 2 else len(intact))] = rng.integers(256)
    return bytes(changed)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_damage_anywhere_is_told_or_harmless(tmp_path: Path, name: str) -> None:
    nibabel.save(nibabel.Nifti1Image(VOXELS, np.diag([1, 2, 3, 1.0])), tmp_path / name)
    intact, like = (tmp_path / name).read_bytes(), tmp_path / f"like_{name}"
    refused = 0
    for seed in range(150):
        (tmp_path / name).write_bytes(damaged(intact, seed))
        like.write_bytes((tmp_path / name).read_bytes())
        try:
            volume, header = read_volume(tmp_path / name), volume_header(tmp_path / name)
            assert volume.shape[1:] == header.shape
            assert np.isfinite(volume.numpy()).all()
            assert np.isfinite(volume.affine).all()
            mask = (volume[0].as_tensor() > 20).byte()
            write_labels(mask, like, tmp_path / "written.nii")
            assert np.array_equal(read_labels(tmp_path / "written.nii")[0].numpy(), mask.numpy())
        except DataError as error:
            assert str(tmp_path) in str(error)  # noqa: PT017  # both ways are right
            refused += 1
    assert refused > 40, "the damage is too small to tell anything"


def test_any_damage_to_compressed_voxels_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(VOXELS, np.eye(4)), path)
    intact = path.read_bytes()
    for place in range(10, len(intact), 7):
        path.write_bytes(intact[:place] + bytes([intact[place] ^ 0x10]) + intact[place + 1 :])
        with pytest.raises(DataError, match=r"a\.nii\.gz: "):
            read_volume(path)
