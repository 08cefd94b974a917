"""Videos to files that players and browsers can show: H.264 in MP4."""

import os
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Final

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.video.reformatter import ColorRange, Colorspace

from densevit.errors import DataError, InstallationError

ENCODER: Final = "libx264"
FINE = MappingProxyType({"crf": "20"})  # hard to tell from the original


def write_video(
    path: str | Path, frames: Iterable[np.ndarray], fps: float | Fraction, options: Mapping[str, str] = FINE
) -> None:
    """Write frames as an MP4 file, whole or not at all; what was there before is replaced.

    H.264 halves the resolution of colour, so that a side must be even: an odd one grows by a pixel, its last row or
    column repeated. Frames are drawn from ``frames`` as they are encoded; an error in there leaves no file.

    Args:
        path: The file; folders are made as needed.
        frames: ``(H, W, 3)`` uint8 RGB each, all of one size.
        fps: Frames per second.
        options: Of the encoder, such as ``crf``, its error (0 to 51), or ``g``, frames from one that stands alone to
            the next; see ``ffmpeg -h encoder=libx264``.

    Raises:
        DataError: There are no frames.
        ValueError: A frame is not uint8 RGB or not of the size of the first, or ``fps`` is not positive.
        InstallationError: PyAV lacks the encoder.
    """
    path = Path(path)
    rate = Fraction(fps).limit_denominator(1001)  # 30000 / 1001 and the like are exact
    if rate <= 0:
        raise ValueError(f"{path}: fps must be positive, not {fps}")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if not _encode(part, frames, rate, options):
            raise DataError(f"{path}: there are no frames to write")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _encode(path: Path, frames: Iterable[np.ndarray], rate: Fraction, options: Mapping[str, str]) -> int:
    """Write a file and return the number of its frames; without frames the file is no video."""
    _check_encoder()
    count = 0
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(ENCODER, rate=rate, options=dict(options))
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace = Colorspace.ITU601  # what readers take that do not look
        stream.codec_context.color_range = ColorRange.MPEG
        shape: tuple[int, ...] = ()
        for pixels in frames:
            shape = shape or pixels.shape
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape != (*shape[:2], 3):
                raise ValueError(
                    f"frame {count} must be uint8 of shape {(*shape[:2], 3)}, not {pixels.dtype} {pixels.shape}"
                )
            frame = _frame(pixels)
            if count == 0:
                stream.width, stream.height = frame.width, frame.height
            frame.pts, frame.time_base = count, 1 / rate
            container.mux(stream.encode(frame))
            count += 1
        if count:
            container.mux(stream.encode())
    return count


def _frame(pixels: np.ndarray) -> av.VideoFrame:
    height, width = pixels.shape[:2]
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
    return frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU601)


def _check_encoder() -> None:
    try:
        av.Codec(ENCODER, "w")
    except UnknownCodecError as error:
        raise InstallationError(
            f"this PyAV lacks {ENCODER} and so cannot write H.264; the wheels have it: pip install --force-reinstall av"
        ) from error
