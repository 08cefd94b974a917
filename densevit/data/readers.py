"""Images and masks from files. What cannot be read faithfully is refused, with the way to convert it."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import mmcv
import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from PIL.ImageFile import ImageFile
from torchvision import tv_tensors

from densevit.data.naming import naming, unreadable
from densevit.errors import DataError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")  # that folders are searched for
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # from which on Pillow refuses an image as a decompression bomb
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
DECODER_ERRORS = (  # what Pillow's plugins and OpenCV raise for damaged files
    ArithmeticError,
    EOFError,
    LookupError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    cv2.error,
    Image.DecompressionBombError,
)


def read_image(path: str | Path | np.ndarray) -> tv_tensors.Image:
    """Return an image as uint8 RGB ``(3, H, W)``, upright as its EXIF orientation says.

    Args:
        path: A file, or pixels in memory, ``(H, W, 3)`` uint8 RGB.

    Raises:
        DataError: The file is missing, damaged or no image, has more than 8 bits a channel, or transparent pixels.
    """
    if isinstance(path, np.ndarray):
        return tv_tensors.Image(torch.from_numpy(path).permute(2, 0, 1))
    with naming(path, DECODER_ERRORS, _describe):
        data = _read_bytes(path)
        with Image.open(io.BytesIO(data)) as header:
            if _has_16_bits(header):
                raise DataError(
                    f"{path}: more than 8 bits a channel; scale it to 8, e.g. with `magick IN -depth 8 OUT.png`"
                )
            pixels = _decode_plain(data, path) if _is_plain(header) else _decode(header, path)
    return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))  # stays HWC in memory


def read_mask(path: str | Path) -> tv_tensors.Mask:
    """Return the ids of a mask ``(H, W)``: uint8, or int64 from a file of 16 bits. A palette is not applied.

    Raises:
        DataError: The file is missing, damaged or no image, or holds anything but one lossless id per pixel.
    """
    with naming(path, DECODER_ERRORS, _describe), Image.open(io.BytesIO(_read_bytes(path))) as header:
        if header.format == "JPEG":
            raise DataError(f"{path}: JPEG changes ids; save the masks as PNG from their source")
        if header.mode not in ("1", "L", "P", "I") and not header.mode.startswith("I;16"):
            raise DataError(
                f"{path}: a mask holds one id per pixel, but this is a colour image ({header.mode}); "
                "replace each colour by its id and save as an 8-bit PNG"
            )
        if any(_raw_mode(header).startswith(raw) for raw in ("L;2", "L;4")):
            raise DataError(f"{path}: gray levels of fewer than 8 bits are no ids; save as an 8-bit PNG")
        ids = np.asarray(header)
    ids = ids.astype(np.uint8 if ids.dtype.itemsize == 1 else np.int64)
    return tv_tensors.Mask(torch.from_numpy(ids))


def pixels_of(picture: Image.Image, name: str) -> np.ndarray:
    """Return a picture of Pillow as `read_image` reads its file: ``(H, W, 3)`` uint8 RGB, upright.

    Raises:
        DataError: It has more than 8 bits a channel, transparent pixels, or a damaged file behind it.
    """
    with naming(name, DECODER_ERRORS):
        if picture.mode[0] in "IF":
            raise DataError(f"{name}: more than 8 bits a channel ({picture.mode}); scale it to 8")
        return _decode(picture, name)


def image_size(path: str | Path) -> tuple[int, int]:
    """Return (height, width) of an upright image from the header of its file.

    Raises:
        DataError: The file is missing or no image.
    """
    with naming(path, DECODER_ERRORS, _describe), Image.open(path) as header:
        width, height = header.size
        return (width, height) if _orientation(header) in TURNED else (height, width)


def _describe(path: str | Path, error: Exception) -> str:
    if isinstance(error, cv2.error):  # tells of its source code only
        return "damaged or truncated"
    if not isinstance(error, Image.UnidentifiedImageError):
        return unreadable(path, error)
    return "not an image" if Path(path).stat().st_size else "an empty file"


def _read_bytes(path: str | Path) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _orientation(header: ImageFile) -> int:
    return header.getexif().get(ExifTags.Base.Orientation, 1)


def _raw_mode(header: ImageFile) -> str:
    """Return the layout of the samples in the file, e.g. "RGB;16B" where Pillow would decode to 8 bits."""
    return " ".join(str(part) for tile in header.tile for part in _as_tuple(tile[3]))


def _as_tuple(args: object) -> tuple[object, ...]:
    return args if isinstance(args, tuple) else (args,)


def _has_16_bits(header: ImageFile) -> bool:
    return header.mode[0] in "IF" or ";16" in _raw_mode(header)


def _is_plain(header: ImageFile) -> bool:
    """Whether OpenCV, the faster decoder, reads it as Pillow would: no alpha, no orientation, no CMYK."""
    plain = header.format in ("JPEG", "PNG") and header.mode in ("L", "P", "RGB")
    return plain and not header.has_transparency_data and _orientation(header) == 1


def _decode_plain(data: bytes, path: str | Path) -> np.ndarray:
    pixels = mmcv.imfrombytes(data, channel_order="rgb", backend="cv2")
    if pixels is None:  # OpenCV tells of damage like this or by raising, but never returns a part (4.11, 5.0)
        raise DataError(f"{path}: damaged or truncated; replace or remove the file")
    return pixels


def _decode(header: Image.Image, path: str | Path) -> np.ndarray:
    upright = ImageOps.exif_transpose(header)
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        if np.asarray(upright.getchannel("A")).min() < 255:
            raise DataError(
                f"{path}: has transparent pixels; give it a background, "
                "e.g. with `magick IN -background white -alpha remove -alpha off OUT.png`"
            )
    return np.array(upright.convert("RGB"))
