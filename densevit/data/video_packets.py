"""Videos as their packets tell, and exact frames by PyAV.

The packets are read before they are decoded: they say how many frames there are, whether the file is whole, and from
where to decode a frame. A container's own seeking is not used, as it finds frames by times that may be wrong.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from densevit.errors import DataError

HELD = 64 * 2**20  # bytes of packets that are held for decoding
SHORTEST = 0.9  # share of what a header promises; with less a file counts as truncated
ROUNDED = 0.95  # share of a rate that times may be off, which Matroska rounds to milliseconds
PICTURES = ("image2", "_pipe")  # ends of formats
TIMED_FORMATS = ("mov", "matroska")  # that tell the time of every packet
# Notes in another encoding are no reason to refuse a file; from 19 on PyAV is lenient by itself, without the option.
LENIENT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
TIMED_CODECS = ("av1", "h264", "hevc", "vp9")  # with one frame in each packet
PARTS, IDR = range(1, 6), 5  # H.264: kinds of units with a part of a frame; frames after IDR refer to none before


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What there is to choose from: number of frames, frames per second, height and width in pixels."""

    frames: int
    fps: float
    height: int
    width: int


@dataclass(frozen=True)
class VideoIndex:
    """What the packets of a video say.

    Attributes:
        info: Sizes; height and width are those of upright frames.
        codec: Such as "h264".
        turns: Quarter turns, counter-clockwise, that make frames upright.
        bits: Of a colour.
        times: When each packet is shown, in ticks and in the order of decoding; None if these do not tell frames apart.
        tick: Seconds.
        order: Packets in the order in which they are shown.
        keys: Packets that decoding may start from.
        packets: The packets; None if they are too large to hold, and are read again.
        closed: All packets marked as keys are such, and no frame that is shown before one is decoded after it.
    """

    info: VideoInfo
    codec: str
    turns: int
    bits: int
    times: np.ndarray | None
    tick: float
    order: np.ndarray
    keys: np.ndarray
    packets: Sequence[av.Packet] | None
    closed: bool

    def spans(self, numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
        """Yield the first and last packets of the stretches to decode for frames, where there are ``times``."""
        assert self.times is not None
        span: tuple[int, int] | None = None
        for last in self.order[sorted(numbers)].tolist():
            before = self.keys[self.keys <= last]
            before = before[self.times[before] <= self.times[last]]
            first = int(before[-1]) if len(before) else 0
            if span and first <= span[1] + 1:
                span = min(first, span[0]), max(last, span[1])
                continue
            if span:
                yield span
            span = first, last
        if span:
            yield span


@contextmanager
def open_video(path: str | Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file, and its first video for decoding by one thread.

    Raises:
        DataError: The file holds no video, or is a picture.
        av.FFmpegError: It is missing or damaged.
    """
    with av.open(os.path.abspath(path), **LENIENT) as container:  # names may look like addresses
        if container.format.name.endswith(PICTURES):
            raise DataError(f"{path}: a picture, not a video; replace or remove the file")
        streams = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
        if not streams:
            kinds = ", ".join(sorted({s.type for s in container.streams if s.type != "video"})) or "nothing"
            raise DataError(f"{path}: holds no video, only {kinds}; replace or remove the file")
        if not streams[0].codec_context:
            raise DataError(f"{path}: PyAV cannot decode this kind of video; convert it to H.264")
        streams[0].codec_context.thread_count = 1
        yield container, streams[0]


def tells_rate(stream: VideoStream) -> bool:
    """Say whether a header has the number of frames, and a mean rate that is not far from what the codec tells."""
    return stream.frames > 0 and _rates_agree(stream)


def has_frame_per_packet(container: InputContainer, stream: VideoStream) -> bool:
    """Say whether a packet of this format and codec is a frame."""
    return container.format.name.startswith(TIMED_FORMATS) and stream.codec_context.codec.canonical_name in TIMED_CODECS


def read_times(container: InputContainer, stream: VideoStream) -> list[int | None]:
    """Return when the packets of an opened file are shown, in ticks, those before damage if there is some."""
    times: list[int | None] = []
    # Who reads the frames is told of damage, and bears a little at the end.
    with suppress(av.FFmpegError):
        times.extend(packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard)
    return times


def frames_per_second(stream: VideoStream, times: Sequence[int | None] = ()) -> float:
    """Return the mean rate of frames that are shown at ``times``, in ticks; needed unless the header `tells_rate`.

    Headers of Matroska have a nominal rate, which variable ones do not keep. Where times do not grow, the mean of a
    header is nonsense and the rate is the one that the codec tells; of variable ones, that is one of the shortest step.
    """
    average, guessed = float(stream.average_rate or 0), float(stream.guessed_rate or 0)
    measured = 0.0 if tells_rate(stream) else _measured_rate(times, float(stream.time_base or 0))
    if measured and not ROUNDED * measured <= average <= measured / ROUNDED:
        return measured
    return average if measured or _rates_agree(stream) else guessed


def _rates_agree(stream: VideoStream) -> bool:
    average, guessed = float(stream.average_rate or 0), float(stream.guessed_rate or 0)
    return not guessed or 0.5 <= average / guessed <= 2


def _measured_rate(times: Sequence[int | None], tick: float) -> float:
    """Return frames per second; 0 where times are missing or do not grow."""
    steps = np.diff(np.sort([time for time in times if time is not None]))
    if len(steps) + 1 < len(times) or not len(steps) or steps.min() <= 0:
        return 0.0
    if len(steps) > 1 and steps.max() > steps.sum() / 2:  # a pause of the recording
        steps = np.delete(steps, steps.argmax())
    return len(steps) / (float(steps.sum()) * tick) if tick else 0.0


def end_of(packet: av.Packet) -> float:
    """Return the second at which a packet is no more shown or heard; 0 if it has no time."""
    return 0.0 if packet.pts is None else float((packet.pts + (packet.duration or 0)) * packet.time_base)


def read_index(path: str | Path, container: InputContainer, stream: VideoStream) -> VideoIndex:
    """Read all packets of an opened file, and decode the first frame.

    Raises:
        DataError: The file is truncated, or not one frame can be decoded.
        av.FFmpegError: It is damaged.
    """
    end, packets = 0.0, _Packets(stream)
    whole = "matroska" in container.format.name  # tells no number of frames, but how long all streams are
    for packet in container.demux() if whole else container.demux(stream):
        end = max(end, end_of(packet))
        if packet.stream_index == stream.index:
            packets.add(packet)
    refuse_truncated(path, len(packets.times), stream.frames, "frames")
    if whole and container.duration:
        refuse_truncated(path, end, container.duration / av.time_base, "s")
    first = next(_all_frames(path, packets.held), None)
    if first is None:
        raise DataError(f"{path}: no frame can be decoded; replace or remove the file")
    return packets.index(first, container.format.name)


def decode(path: str | Path, index: VideoIndex, numbers: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return frames ``(len(numbers), height, width, 3)``, upright, of a ``size`` of (height, width).

    The file that the index is of must still be open.

    Raises:
        DataError: The file ends before.
        av.FFmpegError: It is damaged.
    """
    wanted = set(numbers.tolist())
    height, width = size[:: -1 if index.turns % 2 else 1]
    scaler, frames = VideoReformatter(), {}

    def keep(decoded: Iterator[tuple[int, VideoFrame]]) -> None:
        for number, frame in decoded:
            pixels = scaler.reformat(frame, width, height, "rgb24", interpolation="BILINEAR").to_ndarray()
            frames[number] = np.rot90(pixels, index.turns)

    if index.times is not None:
        keep(_by_time(path, index, wanted))
    if wanted - frames.keys():  # they do not come with the times that were promised
        keep(_by_order(path, index, wanted))
    return np.stack([frames[number] for number in numbers.tolist()])


class _Packets:
    """What is gathered of the packets of one stream."""

    def __init__(self, stream: VideoStream) -> None:
        self.stream = stream
        self.times: list[int | None] = []
        self.shown: list[int] = []
        self.keys: list[int] = []
        self.held: list[av.Packet] | None = []
        self.size = 0
        self.closed = True

    def add(self, packet: av.Packet) -> None:
        if not packet.size:  # the end
            return
        if not packet.is_discard:
            self.shown.append(len(self.times))
        if packet.is_keyframe:
            if _starts_afresh(packet, self.stream.codec_context):
                self.keys.append(len(self.times))
            else:
                self.closed = False
        self.times.append(packet.pts)
        self.size += packet.size
        if self.held is not None:
            self.held.append(packet)
        if self.size > HELD:
            self.held = None

    def index(self, first: VideoFrame, container: str) -> VideoIndex:
        turns = round(first.rotation / 90) % 4
        height, width = (first.width, first.height) if turns % 2 else (first.height, first.width)
        shown, keys, times = np.array(self.shown, dtype=np.int64), np.array(self.keys, dtype=np.int64), None
        codec, closed = self.stream.codec_context.codec.canonical_name, False
        times_shown = [self.times[place] for place in self.shown]
        if self._tell_frames(codec, container):
            times = np.array(self.times, dtype=np.int64)
            shown = shown[np.argsort(times[shown])]
            last_key = np.zeros(len(times), dtype=np.int64)
            last_key[keys] = keys
            overtaken = times < times[np.maximum.accumulate(last_key)]
            closed = self.closed and len(shown) == len(times) and not overtaken.any()
        return VideoIndex(
            VideoInfo(len(shown), frames_per_second(self.stream, times_shown), height, width),
            codec,
            turns,
            max(part.bits for part in first.format.components),
            times,
            float(self.stream.time_base or 0),
            shown,
            keys,
            self.held,
            closed,
        )

    def _tell_frames(self, codec: str, container: str) -> bool:
        """Say whether every frame has a packet and a time of its own."""
        times = [self.times[place] for place in self.shown]
        return (
            codec in TIMED_CODECS
            and container.startswith(TIMED_FORMATS)
            and None not in self.times
            and len(set(times)) == len(times)
        )


def _starts_afresh(packet: av.Packet, context: VideoCodecContext) -> bool:
    """Say whether no frame from this packet on refers to one before; H.264 marks others as keys, too."""
    if context.codec.canonical_name != "h264":
        return True
    if not context.extradata or context.extradata[0] != 1:
        return False
    data, size, at = memoryview(packet), (context.extradata[4] & 3) + 1, 0  # units, each after its length
    while at + size < len(data):
        kind = data[at + size] & 31
        if kind in PARTS:
            return kind == IDR
        at += size + int.from_bytes(data[at : at + size], "big")
    return False


def refuse_truncated(path: str | Path, found: float, promised: float, unit: str) -> None:
    """Raise a `DataError` if there is clearly less than a header promises."""
    if found < SHORTEST * promised:
        raise DataError(f"{path}: truncated, {found:.6g} of {promised:.6g} {unit}; replace or remove the file")


def _packets(path: str | Path, held: Sequence[av.Packet] | None) -> Iterator[av.Packet]:
    """Yield the packets of a video for decoding from the first."""
    if held is None:
        with open_video(path) as (container, stream):
            yield from (packet for packet in container.demux(stream) if packet.size)
    elif held:
        _context(held[0]).flush_buffers()
        yield from held


def _context(packet: av.Packet) -> VideoCodecContext:
    assert isinstance(packet.stream.codec_context, VideoCodecContext)
    return packet.stream.codec_context


def _by_time(path: str | Path, index: VideoIndex, wanted: set[int]) -> Iterator[tuple[int, VideoFrame]]:
    """Decode only the packets that are needed; frames tell by their times which they are."""
    assert index.times is not None
    numbers = {int(index.times[index.order[number]]): number for number in wanted}
    spans = index.spans(wanted)
    first, last = next(spans)
    for place, packet in enumerate(_packets(path, index.packets)):
        if place < first:
            continue
        frames = _context(packet).decode(packet)
        if place == last:  # those that were held back
            frames += _context(packet).decode(None)
        yield from ((numbers[frame.pts], frame) for frame in frames if frame.pts in numbers)
        if place == last:
            first, last = next(spans, (-1, -1))
            if last < 0:
                return
            _context(packet).flush_buffers()


def _by_order(path: str | Path, index: VideoIndex, wanted: set[int]) -> Iterator[tuple[int, VideoFrame]]:
    """Decode from the start up to the last that is wanted, and count; for those that are not there give the last."""
    number, frame = -1, None
    for number, frame in enumerate(_all_frames(path, index.packets)):
        if number in wanted:
            yield number, frame
        if number >= max(wanted):
            return
    refuse_truncated(path, number + 1, max(wanted) + 1, "frames")
    if frame is not None:
        yield from ((n, frame) for n in wanted if n > number)


def _all_frames(path: str | Path, held: Sequence[av.Packet] | None) -> Iterator[VideoFrame]:
    context = None
    for packet in _packets(path, held):
        context = _context(packet)
        yield from context.decode(packet)
    if context is not None:
        yield from context.decode(None)
