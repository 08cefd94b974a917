"""NIfTI files of every kind come back as volumes on their grid, and labels go out on the grid of the image."""

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from densevit.data.volume import compare_grids, read_labels, read_volume, volume_header, write_labels
from densevit.errors import DataError

SHAPE = (3, 4, 5)
VOXELS = np.random.default_rng(0).integers(0, 100, SHAPE)
ROTATED = nibabel.affines.from_matvec(
    nibabel.eulerangles.euler2mat(0.3, 0.2, -0.4) @ np.diag([-0.8, 1.5, 2.5]), [5, -60, 7]
)  # left-handed too


def write(path: Path, voxels: np.ndarray = VOXELS, affine: Any = None, kind: Any = nibabel.Nifti1Image) -> Path:
    dtype = np.int32 if voxels.dtype == np.int64 else voxels.dtype
    nibabel.save(kind(voxels.astype(dtype), np.diag([1, 2, 3, 1.0]) if affine is None else affine), path)
    return path


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"]
)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_volumes_are_read_as_float32_with_their_affine(tmp_path: Path, dtype: str, name: str) -> None:
    image = nibabel.Nifti1Image(VOXELS.astype(dtype), ROTATED, dtype=dtype)
    nibabel.save(image, tmp_path / name)
    volume = read_volume(tmp_path / name)
    assert volume.dtype == torch.float32
    assert volume.is_contiguous()
    assert np.array_equal(volume[0].numpy(), VOXELS)
    assert np.allclose(volume.affine, ROTATED, atol=1e-6)
    header = volume_header(tmp_path / name)
    assert (header.shape, header.dtype) == (SHAPE, np.dtype(dtype))
    assert header.spacing == pytest.approx((0.8, 1.5, 2.5))
    assert np.allclose(header.affine, ROTATED, atol=1e-6)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_versions_and_byte_orders_are_read(tmp_path: Path, kind: Any, order: str) -> None:
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.int16)
    nibabel.save(kind(VOXELS.astype(np.int16), np.eye(4), header), tmp_path / "a.nii.gz")
    assert volume_header(tmp_path / "a.nii.gz").dtype.newbyteorder("=") == np.int16
    assert np.array_equal(read_volume(tmp_path / "a.nii.gz")[0].numpy(), VOXELS)


def test_values_are_scaled_as_the_header_says(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VOXELS.astype(np.int16), np.eye(4))
    image.header.set_slope_inter(0.5, -1000)
    content = bytearray(nibabel.Nifti1Image(VOXELS.astype(np.int16), np.eye(4)).to_bytes())
    content[:348] = image.header.binaryblock
    content[108:112] = np.float32(352).tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    assert torch.equal(read_volume(tmp_path / "a.nii")[0].as_tensor(), torch.from_numpy(VOXELS * 0.5 - 1000).float())


def test_content_and_not_the_name_says_whether_it_is_compressed(tmp_path: Path) -> None:
    content = write(tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii").write_bytes(gzip.compress(content))
    (tmp_path / "b.nii.gz").write_bytes(content)
    for name in ("b.nii", "b.nii.gz"):
        assert np.array_equal(read_volume(tmp_path / name)[0].numpy(), VOXELS)


def test_several_files_are_channels(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.nii", VOXELS + i) for i in range(3)]
    volume = read_volume(paths)
    assert volume.shape == (3, *SHAPE)
    assert np.array_equal(volume[2].numpy(), VOXELS + 2)


def test_channels_on_other_grids_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a.nii")
    with pytest.raises(DataError, match=r"b\.nii is 3 x 4 x 4, but .*a\.nii is 3 x 4 x 5"):
        read_volume([first, write(tmp_path / "b.nii", VOXELS[..., :4])])
    with pytest.raises(DataError, match=r"c\.nii lies 2 voxels off .*a\.nii"):
        read_volume(
            [first, write(tmp_path / "c.nii", affine=nibabel.affines.from_matvec(np.diag([1, 2, 3]), [0, 4, 0]))]
        )


def test_a_trailing_axis_of_one_is_dropped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", VOXELS[..., None])
    assert read_volume(path).shape == (1, *SHAPE)
    assert volume_header(path).shape == SHAPE


def test_a_single_slice_is_a_volume(tmp_path: Path) -> None:
    assert read_volume(write(tmp_path / "a.nii", VOXELS[..., :1])).shape == (1, 3, 4, 1)


def test_rounded_headers_are_one_grid(tmp_path: Path) -> None:
    one = volume_header(write(tmp_path / "a.nii", affine=ROTATED))
    other = volume_header(write(tmp_path / "b.nii", affine=ROTATED + 1e-3))
    compare_grids("a", one, "b", other)


def test_labels_are_ids_of_uint8(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path / "a.nii.gz", VOXELS.astype(np.float64), ROTATED))
    assert (labels.shape, labels.dtype) == ((1, *SHAPE), torch.uint8)
    assert np.array_equal(labels[0].numpy(), VOXELS)
    assert np.allclose(labels.affine, ROTATED, atol=1e-6)


@pytest.mark.parametrize("value", [0.5, 256.0, -1.0, np.nan, np.inf])
def test_labels_that_are_no_ids_are_refused(tmp_path: Path, value: float) -> None:
    voxels = VOXELS.astype(np.float32)
    voxels[1, 1, 1] = value
    with pytest.raises(DataError, match=rf"a\.nii: holds {value:g}, but labels are whole numbers of 0\.\.255"):
        read_labels(write(tmp_path / "a.nii", voxels))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_labels_are_written_with_the_header_of_the_image(tmp_path: Path, dtype: Any, kind: Any) -> None:
    image = kind(VOXELS.astype(dtype), ROTATED)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(ROTATED, code=4)
    image.set_qform(ROTATED, code=1)
    image.header["cal_max"] = 300
    image.header.set_slope_inter(2, 5)
    nibabel.save(image, tmp_path / "a.nii.gz")
    ids = torch.from_numpy(VOXELS % 7).to(torch.uint8)
    write_labels(ids, tmp_path / "a.nii.gz", tmp_path / "deep" / "b.nii.gz")
    assert torch.equal(read_labels(tmp_path / "deep" / "b.nii.gz")[0].as_tensor(), ids)
    before, after = (nibabel.load(tmp_path / name) for name in ("a.nii.gz", "deep/b.nii.gz"))
    assert type(after) is kind
    assert after.get_data_dtype() == dtype
    assert np.array_equal(before.affine, after.affine)
    for field in ("sform_code", "qform_code", "xyzt_units", "pixdim", "srow_x", "quatern_b"):
        assert np.array_equal(before.header[field], after.header[field]), field
    assert after.header["cal_max"] == 0
    assert np.array_equal(np.asarray(after.dataobj), ids.numpy())


def test_labels_of_numpy_are_written_too(tmp_path: Path) -> None:
    like = write(tmp_path / "a.nii", VOXELS.astype(np.int16))
    write_labels(VOXELS % 7, like, tmp_path / "b.nii")
    assert np.array_equal(read_labels(tmp_path / "b.nii")[0], VOXELS % 7)


def test_ids_that_the_type_of_the_image_cannot_hold_are_uint8(tmp_path: Path) -> None:
    like = write(tmp_path / "a.nii", VOXELS.astype(np.int8))
    write_labels(torch.full(SHAPE, 200, dtype=torch.uint8), like, tmp_path / "b.nii")
    assert volume_header(tmp_path / "b.nii").dtype == np.uint8
    assert read_labels(tmp_path / "b.nii").unique().tolist() == [200]


def test_extensions_of_the_image_are_left_behind(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VOXELS.astype(np.int16), np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"name of the patient" * 50))
    nibabel.save(image, tmp_path / "a.nii")
    write_labels(torch.ones(SHAPE, dtype=torch.uint8), tmp_path / "a.nii", tmp_path / "b.nii")
    assert b"patient" not in (tmp_path / "b.nii").read_bytes()
    assert read_labels(tmp_path / "b.nii").unique().tolist() == [1]


def test_the_same_labels_are_the_same_bytes_and_of_another_shape_are_refused(tmp_path: Path) -> None:
    like, ids = write(tmp_path / "a.nii"), torch.ones(SHAPE, dtype=torch.uint8)
    for name in ("b.nii.gz", "c.nii.gz"):
        write_labels(ids, like, tmp_path / name)
    assert (tmp_path / "b.nii.gz").read_bytes() == (tmp_path / "c.nii.gz").read_bytes()
    with pytest.raises(DataError, match=r"labels of 2 x 4 x 5 voxels do not fit .*a\.nii of 3 x 4 x 5"):
        write_labels(ids[:2], like, tmp_path / "d.nii")
    assert not (tmp_path / "d.nii").exists()
