"""Volumes and their labels from NIfTI files. What cannot be read faithfully is refused, with the way out.

A file is read whole and then decoded: slicing a compressed one costs more, and only its end tells damage.
"""

import gzip
import io
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

import nibabel
import numpy as np
import torch
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from torch import Tensor

from densevit.data.checks import ContradictionError
from densevit.data.generated import write_whole
from densevit.data.naming import naming
from densevit.errors import DataError

if TYPE_CHECKING:  # MONAI takes seconds to import, which who needs no volume is spared
    from monai.data import MetaTensor

VOLUME_SUFFIXES = (".nii", ".nii.gz")
FORMATS = {348: nibabel.Nifti1Image, 540: nibabel.Nifti2Image}  # by the size of the header, with which a file starts
MAX_SKEW = 0.01  # cosine of the angle between two axes of voxels, beyond which spacings mean little
MAX_SHIFT = 0.1  # voxels by which the grids of an image and its labels may differ: headers are rounded
DICOM_HELP = "convert the series to NIfTI first, e.g. with `dcm2niix -z y -o OUT FOLDER`"
SPLIT_HELP = (
    'save each as a file and list them, as the channels of one or as several samples: python -c "import nibabel as n; '
    "[n.save(v, f'OUT_{i}.nii.gz') for i, v in enumerate(n.four_to_three(n.load('IN')))]\""
)
DECODER_ERRORS = (  # what nibabel and gzip raise for damaged files
    ArithmeticError,
    EOFError,
    HeaderDataError,
    ImageFileError,
    LookupError,
    MemoryError,
    OSError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


VolumeSource = str | Path | nibabel.Nifti1Image


class VolumeHeader(NamedTuple):
    """What a file says of its voxels.

    Attributes:
        shape: Voxels along the three axes of the file.
        spacing: Edges of a voxel in mm.
        dtype: Of the voxels in the file.
        affine: ``(4, 4)`` float64, indices of voxels to mm in RAS+: towards right, front and top of the patient.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    dtype: np.dtype
    affine: np.ndarray


def read_volume(path: VolumeSource | Sequence[str | Path]) -> "MetaTensor":
    """Return a volume ``(C, D, H, W)`` float32 with its ``affine``, the axes as in the file.

    Values are scaled as the header says. Axes of one voxel are fine: networks pad.

    Args:
        path: A file, or one per channel, all of them on the same grid; or an image of nibabel in memory.

    Raises:
        DataError: A file is missing, damaged, not three-dimensional, has no orthogonal grid, or voxels that are not
            finite; or the grids of channels differ.
    """
    paths: list[Any] = [path] if isinstance(path, VolumeSource) else list(path)
    headers, channels = [], []
    for each in paths:
        header, voxels = _read(each)
        with np.errstate(over="ignore"):
            voxels = voxels.astype(np.float32, order="C")
        if bad := voxels.size - np.count_nonzero(np.isfinite(voxels)):
            raise DataError(
                f"{_name(each)}: {bad} voxels are not finite in float32; replace them, e.g. by numpy.nan_to_num"
            )
        headers.append(header)
        channels.append(voxels)
        compare_grids(paths[0], headers[0], each, header)
    image = on_grid(torch.from_numpy(np.stack(channels)), torch.from_numpy(headers[0].affine))
    image.meta["filename_or_obj"] = _name(paths[0])  # as MONAI's readers say it
    return image


def read_labels(path: str | Path) -> "MetaTensor":
    """Return the ids of the classes of voxels, ``(1, D, H, W)`` uint8, with the ``affine`` of the file.

    Raises:
        DataError: As from `read_volume`; or values are no ids of 0 to 255.
    """
    header, voxels = _read(path)
    with np.errstate(invalid="ignore"):
        ids = voxels.astype(np.uint8, order="C")
    if (wrong := ids != voxels).any():
        raise DataError(
            f"{path}: holds {voxels[wrong][0]:g}, but labels are whole numbers of 0..255, an id per voxel; "
            "were they resampled by another interpolation than nearest, or is this the image?"
        )
    return on_grid(torch.from_numpy(ids[None]), torch.from_numpy(header.affine))


def volume_header(path: VolumeSource) -> VolumeHeader:
    """Return the grid of a volume, in a file or in memory, without reading its voxels.

    Raises:
        DataError: As from `read_volume`, as far as the header tells.
    """
    return _header(path)[2]


def compare_grids(first: str | Path, one: VolumeHeader, second: str | Path, other: VolumeHeader) -> None:
    """Check that the voxels of two files lie at the same places.

    Raises:
        ContradictionError: They do not.
    """
    if one.shape != other.shape:
        raise ContradictionError(
            f"{second} is {_times(other.shape)}, but {first} is {_times(one.shape)} voxels: "
            "resample one of them to the grid of the other, or remove the pair"
        )
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(one.shape) - 1)
    moved = np.linalg.solve(one.affine, other.affine @ np.c_[corners, np.ones(8)].T)[:3].T - corners
    if (shift := np.abs(moved).max()) > MAX_SHIFT:
        raise ContradictionError(
            f"{second} lies {shift:.2g} voxels off {first}: their affines differ. If they belong together voxel by "
            "voxel, write the labels again with the header of the image, by "
            "densevit.data.volume.write_labels(ids, image, path); else resample one of them to the grid of the other"
        )


def on_grid(voxels: Tensor, affine: Tensor) -> "MetaTensor":
    """Return voxels ``(C, D, H, W)`` with the affine ``(4, 4)`` of their grid, for MONAI's transforms."""
    from monai.data import MetaTensor

    return MetaTensor(voxels, affine=affine)


def spacing_of(affine: Tensor) -> Tensor:
    """Return the edges of a voxel in mm, ``(3,)`` float32, of an affine ``(4, 4)``."""
    return affine[:3, :3].norm(dim=0).float()


def write_labels(mask: Tensor | np.ndarray, like: VolumeSource, path: str | Path) -> None:
    """Write ids of classes as NIfTI on the grid of a file or image, whole or not at all.

    Orientation, units and type of the voxels are those of that file; the type is uint8 where it cannot hold the ids.

    Args:
        mask: ``(D, H, W)``, on the grid of ``like``.
        like: The file of the volume, or an image of nibabel in memory.
        path: Ends in .nii or .nii.gz.

    Raises:
        DataError: ``like`` cannot be read or is of another shape.
    """
    ids = np.asarray(torch.as_tensor(mask).as_subclass(Tensor).cpu())
    kind, header, found = _header(like)
    if ids.shape != found.shape:
        raise DataError(f"labels of {_times(ids.shape)} voxels do not fit {_name(like)} of {_times(found.shape)}")
    fits = found.dtype.kind == "f" or ids.max() <= np.iinfo(found.dtype).max
    header.set_data_dtype(found.dtype if fits else np.uint8)
    header["vox_offset"] = header["cal_min"] = header["cal_max"] = 0  # the window and extensions of the image
    content = kind(ids.astype(header.get_data_dtype()), found.affine, header).to_bytes()
    write_whole(Path(path), gzip.compress(content, 6, mtime=0) if Path(path).suffix == ".gz" else content)


def _name(source: VolumeSource) -> str:
    return "a volume in memory" if isinstance(source, nibabel.Nifti1Image) else str(source)


def _header(source: VolumeSource) -> tuple[type[nibabel.Nifti1Image], nibabel.Nifti1Header, VolumeHeader]:
    """Return the class of a file or image, its header, which is the caller's to change, and what that says."""
    with naming(_name(source), DECODER_ERRORS):
        if isinstance(source, nibabel.Nifti1Image):
            kind, header = type(source), source.header.copy()
        else:
            with _open(source) as file:
                kind, header = _parse(source, file.read(max(FORMATS)))
        return kind, header, _describe(_name(source), header)


def _read(path: VolumeSource) -> tuple[VolumeHeader, np.ndarray]:
    with naming(_name(path), DECODER_ERRORS):
        if isinstance(path, nibabel.Nifti1Image):
            found = volume_header(path)
            return found, np.asarray(path.dataobj).reshape(found.shape)
        with _open(path) as file:
            content = file.read()
        _, header = _parse(path, content)
        found = _describe(path, header)
        end = header.get_data_offset() + math.prod(header.get_data_shape()) * found.dtype.itemsize
        if len(content) < end:  # told before nibabel makes room for as much as a damaged header says
            raise DataError(f"{path}: truncated, {len(content)} of {end} bytes; replace or remove the file")
        return found, np.asarray(header.data_from_fileobj(io.BytesIO(content))).reshape(found.shape, order="F")


def _open(path: str | Path) -> IO[bytes]:
    """Return a file to read, decompressed if its content is, whatever its name."""
    path = Path(path)
    if path.is_dir() or path.suffix.lower() == ".dcm":
        raise DataError(f"{path}: {'a folder, no volume' if path.is_dir() else 'DICOM'}; {DICOM_HELP}")
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if compressed else open(path, "rb")


def _parse(path: str | Path, content: bytes) -> tuple[type[nibabel.Nifti1Image], nibabel.Nifti1Header]:
    """Return the class of a file of this start, and its header."""
    sizes = [int.from_bytes(content[:4], order) for order in ("little", "big")]
    kind = next((FORMATS[size] for size in sizes if size in FORMATS), None)
    if kind is None or len(content) < kind.header_class.sizeof_hdr:
        if content[128:132] == b"DICM":
            raise DataError(f"{path}: DICOM; {DICOM_HELP}")
        raise DataError(f"{path}: {'not a NIfTI file' if content else 'an empty file'}; convert or replace it")
    header = kind.header_class(content[: kind.header_class.sizeof_hdr])
    if header["magic"] != kind.header_class.single_magic:
        raise DataError(f"{path}: not a NIfTI file that holds its voxels; save it as one .nii.gz")
    return kind, header


def _describe(path: str | Path, header: nibabel.Nifti1Header) -> VolumeHeader:
    """Check what a header says, and return it."""
    shape = header.get_data_shape()
    if len(shape) > 3 and max(shape[3:]) > 1:
        raise DataError(f"{path}: has {len(shape)} axes ({_times(shape)}), a volume has 3; {SPLIT_HELP}")
    if len(shape) < 3 or min(shape) < 1:
        raise DataError(f"{path}: is {_times(shape) or 'empty'}, but a volume has 3 axes")
    dtype = header.get_data_dtype()
    if dtype.kind not in "uif":
        raise DataError(f"{path}: voxels of type {dtype} are no intensities; save one channel of real numbers")
    affine = header.get_best_affine()
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or spacing.min() <= 0:
        raise DataError(f"{path}: its affine {affine[:3].tolist()} places no voxels; mend sform and qform")
    directions = affine[:3, :3] / spacing
    if np.abs(directions.T @ directions - np.eye(3)).max() > MAX_SKEW:
        raise DataError(
            f"{path}: its axes are not at right angles (gantry tilt?); resample it, e.g. by dcm2niix or "
            "nibabel.processing.resample_to_output"
        )
    return VolumeHeader((shape[0], shape[1], shape[2]), tuple(spacing.tolist()), dtype, affine)


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
