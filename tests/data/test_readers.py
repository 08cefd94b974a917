"""Images and masks are read faithfully or refused with the file's name."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from densevit.data.readers import image_size, read_image, read_mask
from densevit.errors import DataError


@pytest.fixture
def picture() -> np.ndarray:
    """A picture (H, W, 3) that differs under every flip and rotation."""
    y, x = np.mgrid[:24, :40]
    return np.stack([x * 6, y * 10, (x + y) * 3], axis=2).astype(np.uint8)


def as_array(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def test_an_image_is_uint8_rgb_channels_first(tmp_path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == torch.uint8
    assert image.shape == (3, 24, 40)
    assert np.array_equal(as_array(image), picture)


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_gray_and_palette_images_become_rgb(tmp_path: Path, picture: np.ndarray, mode: str) -> None:
    source = Image.fromarray(picture).convert(mode)
    source.save(tmp_path / "a.png")
    assert np.array_equal(as_array(read_image(tmp_path / "a.png")), np.asarray(source.convert("RGB")))


@pytest.mark.parametrize(("name", "mode"), [("a.jpg", "RGB"), ("a.jpg", "CMYK"), ("a.bmp", "RGB"), ("a.webp", "RGB")])
def test_other_formats_decode_as_pillow_does(tmp_path: Path, picture: np.ndarray, name: str, mode: str) -> None:
    Image.fromarray(picture).convert(mode).save(tmp_path / name)
    expected = np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int)
    assert np.abs(as_array(read_image(tmp_path / name)) - expected).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_orientation_is_applied_to_pixels_and_size(
    tmp_path: Path, picture: np.ndarray, orientation: int, suffix: str
) -> None:
    upright = Image.fromarray(picture)
    stored = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # how a camera held so stores it
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = upright if stored is None else upright.transpose(Image.Transpose(stored))
    turned.save(tmp_path / f"a.{suffix}", exif=exif, quality=100, subsampling=0)
    image = read_image(tmp_path / f"a.{suffix}")
    assert image_size(tmp_path / f"a.{suffix}") == (24, 40) == tuple(image.shape[1:])
    assert np.abs(as_array(image).astype(int) - picture).mean() < 2


def test_opaque_alpha_is_dropped_and_transparency_is_refused(tmp_path: Path, picture: np.ndarray) -> None:
    rgba = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "opaque.png")
    assert np.array_equal(as_array(read_image(tmp_path / "opaque.png")), picture)
    rgba[3, 4, 3] = 254
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    with pytest.raises(DataError, match=r"clear\.png.*transparent.*background"):
        read_image(tmp_path / "clear.png")


def test_a_transparent_palette_entry_is_refused_only_where_it_is_used(tmp_path: Path) -> None:
    for used, name in [(1, "opaque.png"), (0, "clear.png")]:
        source = Image.fromarray(np.full((8, 8), used, np.uint8)).convert("P")
        source.save(tmp_path / name, transparency=0)
    assert read_image(tmp_path / "opaque.png").shape == (3, 8, 8)
    with pytest.raises(DataError, match="transparent"):
        read_image(tmp_path / "clear.png")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_images_are_refused(tmp_path: Path, picture: np.ndarray, channels: int, suffix: str) -> None:
    path = tmp_path / f"deep.{suffix}"
    deep = picture.astype(np.uint16) * 257
    cv2.imwrite(str(path), deep if channels == 3 else deep[..., 0])
    with pytest.raises(DataError, match=rf"deep\.{suffix}.*8 bits.*-depth 8"):
        read_image(path)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_anywhere_is_refused(tmp_path: Path, progressive: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", progressive=progressive)
    whole = buffer.getvalue()
    path = tmp_path / "cut.jpg"
    for end in [*range(1, len(whole) - 3, 97), len(whole) - 2, len(whole) - 1]:
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match=r"cut\.jpg"):
            read_image(path)


def test_a_png_cut_anywhere_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    whole = buffer.getvalue()
    path = tmp_path / "cut.png"
    for end in range(1, len(whole) - 40, 31):
        path.write_bytes(whole[:end])
        for read in (read_image, read_mask):
            with pytest.raises(DataError, match=r"cut\.png"):
                read(path)


@pytest.mark.parametrize("read", [read_image, read_mask, image_size])
@pytest.mark.parametrize(
    ("content", "reason"), [(None, "no such file"), (b"", "empty file"), (b"<html>404</html>", "not an image")]
)
def test_a_file_that_is_no_image_is_named(tmp_path: Path, read: object, content: bytes | None, reason: str) -> None:
    path = tmp_path / "broken.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"broken\.png.*{reason}"):
        read(path)  # type: ignore[operator]


@pytest.mark.parametrize("read", [read_image, read_mask, image_size])
def test_a_decompression_bomb_is_refused(tmp_path: Path, read: object) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")))
    with pytest.raises(DataError, match=r"bomb\.png.*exceeds limit"):
        read(path)  # type: ignore[operator]


def test_a_mask_keeps_ids_and_ignores_the_palette(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 4, (9, 7), dtype=np.uint8)
    Image.fromarray(ids).save(tmp_path / "gray.png")
    coloured = Image.fromarray(ids).convert("P")
    coloured.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    coloured.save(tmp_path / "palette.png")
    for name in ("gray.png", "palette.png"):
        mask = read_mask(tmp_path / name)
        assert mask.dtype == torch.uint8
        assert np.array_equal(mask.numpy(), ids)


def test_a_16_bit_mask_keeps_large_ids(tmp_path: Path) -> None:
    ids = np.array([[0, 255, 256, 65535]], np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), ids)
    mask = read_mask(tmp_path / "a.png")
    assert mask.dtype == torch.int64
    assert mask.tolist() == ids.tolist()


def test_a_colour_mask_is_refused_with_the_way_out(tmp_path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png.*replace each colour by its id"):
        read_mask(tmp_path / "a.png")


def test_a_jpeg_mask_is_refused(tmp_path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture[..., 0]).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="JPEG changes ids"):
        read_mask(tmp_path / "a.jpg")


def test_a_mask_of_4_bit_gray_is_refused_as_its_levels_are_scaled(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4), np.uint8))
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[24] = 4  # bit depth in the header chunk
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    (tmp_path / "a.png").write_bytes(bytes(data))
    with pytest.raises(DataError, match="8-bit PNG"):
        read_mask(tmp_path / "a.png")
