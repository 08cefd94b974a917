"""All frames of a video, one after the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from densevit.data.video import shrink, video_info
from densevit.data.video_packets import SHORTEST, end_of, has_frame_per_packet, open_video, refuse_truncated
from densevit.errors import DataError


def stream_frames(
    path: str | Path | np.ndarray, short_side: int | None = None, longest: int | None = None
) -> Iterator[np.ndarray]:
    """Yield all frames in order, upright, uint8 RGB ``(H, W, 3)``, as they are decoded; none is kept.

    Args:
        path: The file, or all of its frames in memory, ``(T, H, W, 3)`` uint8 RGB.
        short_side: Pixels of the shorter side, to which frames are shrunk. Smaller ones are kept.
        longest: Pixels that the longer side may have at most.

    Raises:
        DataError: The file is missing, damaged, or holds no video. A damaged end of up to a tenth is left out.
    """
    if isinstance(path, np.ndarray):
        height, width = path.shape[1:3]
        size = _shrunk(width, height, short_side, longest)[::-1]
        yield from (shrink(frame, size) for frame in path)
        return
    promised, count, read = video_info(path).frames, 0, _Read()
    failure: Exception | str = "it ends there"
    try:
        for count, frame in enumerate(_decoded(path, read), 1):
            if count == 1:
                width, height = _shrunk(frame.width, frame.height, short_side, longest)
                turns = round(frame.rotation / 90) % 4
            yield np.rot90(frame.reformat(width, height, "rgb24", interpolation="BILINEAR").to_ndarray(), turns)
    except (av.FFmpegError, OSError) as error:
        failure = error
    if count == 0 or (read.counted and count < SHORTEST * promised):
        raise DataError(f"{path}: {count} of {promised} frames can be decoded ({failure}); replace or remove the file")
    if read.end:  # some formats have no times
        refuse_truncated(path, read.end, read.duration, "s")


@dataclass
class _Read:
    """What was read of a file.

    Attributes:
        counted: The number of frames that there should be is no estimate.
        duration: Seconds that it should last; 0 if it has a number of frames to hold it to.
        end: Second that was reached, of all streams.
    """

    counted: bool = False
    duration: float = 0.0
    end: float = 0.0


def _decoded(path: str | Path, read: _Read) -> Iterator[av.VideoFrame]:
    with open_video(path) as (container, stream):
        stream.codec_context.thread_count = 0  # as many as there are cores
        read.counted = stream.frames > 0 or has_frame_per_packet(container, stream)
        if stream.frames:
            yield from container.decode(stream)
            return
        read.duration = (container.duration or 0) / av.time_base  # of all streams: sound may go on after the last frame
        for packet in container.demux():
            read.end = max(read.end, end_of(packet))
            if packet.stream_index == stream.index:
                yield from stream.decode(packet)


def _shrunk(width: int, height: int, short_side: int | None, longest: int | None) -> tuple[int, int]:
    """Return the new width and height."""
    sides = width, height
    factor = min(1.0, (short_side or min(sides)) / min(sides), (longest or max(sides)) / max(sides))
    return max(1, round(sides[0] * factor)), max(1, round(sides[1] * factor))
