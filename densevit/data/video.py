"""Clips from files. Only the frames that are asked for are kept, and only in the size that is asked for.

By default PyAV decodes, from the key frames before those that are wanted. With DENSEVIT_DECODER=decord in the
environment decord does, where it can: it finds frames wrongly, without a word, in files where they overtake key
frames or have no times of their own, and cannot turn what it shrinks. Such files, and all where it is not installed,
are for PyAV. Both give the same frames; PyAV took less time on what was measured (docs/speed.md). A reader of decord
is let go after a clip: one that is kept reads ahead without bound.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from torchvision import tv_tensors

from densevit.data.naming import naming
from densevit.data.video_packets import (
    VideoIndex,
    VideoInfo,
    decode,
    frames_per_second,
    has_frame_per_packet,
    open_video,
    read_index,
    read_times,
    tells_rate,
)
from densevit.errors import ConfigError

FIRST = os.environ.get("DENSEVIT_DECODER", "pyav")
if FIRST not in ("pyav", "decord"):
    raise ConfigError(f"DENSEVIT_DECODER is {FIRST!r} in the environment, but there are pyav and decord only: unset it")
os.environ.setdefault("DECORD_EOF_RETRY_MAX", "256")  # its own 10240 takes minutes on a damaged tail

try:
    import decord
except ImportError:  # there are no wheels for some platforms
    decord = None
else:
    decord.logging.set_level(decord.logging.FATAL)  # what it cannot read, PyAV does or says why

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")  # that folders are searched for
DECODER_ERRORS = (av.FFmpegError, OSError, ValueError, LookupError)
DECORD_CODECS = ("h264", "hevc", "vp9")  # of those with times; its FFmpeg is older than AV1

Choose = Callable[[VideoInfo], Sequence[int] | np.ndarray]


def read_clip(path: str | Path | np.ndarray, choose: Choose, short_side: int | None = None) -> tv_tensors.Video:
    """Return frames of a video as uint8 RGB ``(T, 3, H, W)``, upright as its file says.

    Args:
        path: The file, or all of its frames in memory, ``(T, H, W, 3)`` uint8 RGB.
        choose: Given the `VideoInfo`, says which frames, in which order; numbers beyond the ends mean the ends. Of
            frames in memory that are as many as are wanted, all are taken.
        short_side: Pixels of the shorter side, to which frames are shrunk as they are decoded. Smaller ones are kept.

    Raises:
        DataError: The file is missing, damaged, or holds no video.
    """
    if isinstance(path, np.ndarray):
        return tv_tensors.Video(torch.from_numpy(_from_memory(path, choose, short_side)).permute(0, 3, 1, 2))
    with naming(path, DECODER_ERRORS, _describe), open_video(path) as (container, stream):
        index = read_index(path, container, stream)
        chosen = np.clip(np.asarray(choose(index.info), dtype=np.int64), 0, index.info.frames - 1)
        size = _shrunk(index.info, short_side)
        alone = len(container.streams.video) == 1  # of several, decord might choose another
        frames = _by_decord(path, index, chosen, size) if FIRST == "decord" and alone and _suits_decord(index) else None
        if frames is None:
            frames = decode(path, index, chosen, size)
    return tv_tensors.Video(torch.from_numpy(frames).permute(0, 3, 1, 2))  # stays THWC in memory


def video_info(path: str | Path | np.ndarray) -> VideoInfo:
    """Return what the header of a video says, frames as they are stored.

    Where it has no number of frames, as in Matroska, or no rate that may be true, packets are read, but not decoded.
    The number of frames may still be an estimate, or 0, in formats whose packets are no frames; for `read_clip` they
    are counted. Frames in memory, ``(T, H, W, 3)``, have no rate: it is 0.

    Raises:
        DataError: The file is missing or holds no video.
    """
    if isinstance(path, np.ndarray):
        return VideoInfo(len(path), 0.0, *path.shape[1:3])
    with naming(path, DECODER_ERRORS, _describe), open_video(path) as (container, stream):
        times = [] if tells_rate(stream) else read_times(container, stream)
        fps, frames = frames_per_second(stream, times), stream.frames
        if not frames and has_frame_per_packet(container, stream):
            frames = len(times)
        if not frames and stream.duration and stream.time_base:
            frames = round(float(stream.duration * stream.time_base) * fps)
        elif not frames and container.duration:
            frames = round(container.duration / av.time_base * fps)
        return VideoInfo(frames, fps, stream.height, stream.width)


def shrink(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a frame ``(H, W, 3)`` in a height and width that are no larger."""
    return frame if frame.shape[:2] == size else cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA)


def _from_memory(frames: np.ndarray, choose: Choose, short_side: int | None) -> np.ndarray:
    info = video_info(frames)
    chosen = np.clip(np.asarray(choose(info), dtype=np.int64), 0, len(frames) - 1)
    if len(chosen) == len(frames):
        chosen = np.arange(len(frames))
    size = _shrunk(info, short_side)
    return np.stack([shrink(frame, size) for frame in frames[chosen]])


def _suits_decord(index: VideoIndex) -> bool:
    plain = index.turns == 0 and index.bits == 8  # of others, its pixels differ
    return decord is not None and plain and index.closed and index.codec in DECORD_CODECS


def _by_decord(path: str | Path, index: VideoIndex, chosen: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    """Return frames ``(T, H, W, 3)``; None where decord fails or finds other frames than the packets tell."""
    height, width = size
    unique, places = np.unique(chosen, return_inverse=True)
    try:
        reader = decord.VideoReader(os.path.abspath(path), decord.cpu(0), width, height, num_threads=1)
        if not _sees_all(reader, index):
            return None
        frames = reader.get_batch(unique.tolist()).asnumpy()
    except (decord.DECORDError, IndexError, RuntimeError):
        return None
    return frames if np.array_equal(unique, chosen) else frames[places]


def _sees_all(reader: "decord.VideoReader", index: VideoIndex) -> bool:
    if len(reader) != index.info.frames or index.times is None:
        return False
    starts = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    expected = index.times[index.order] * index.tick
    return np.allclose(starts - starts[0], expected - expected[0], rtol=1e-5, atol=1e-3)


def _shrunk(info: VideoInfo, short_side: int | None) -> tuple[int, int]:
    factor = 1.0 if short_side is None else min(1.0, short_side / min(info.height, info.width))
    return round(info.height * factor), round(info.width * factor)


def _describe(path: str | Path, error: Exception) -> str:
    if os.path.isdir(path):
        return f"a folder ({error})"
    empty = os.path.isfile(path) and not os.path.getsize(path)
    return f"an empty file ({error})" if empty else f"damaged or no video ({error})"
