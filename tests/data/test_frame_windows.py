"""Videos frame by frame, and in windows: which frames there are, and how few are kept."""

import re
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from densevit.data.frame_windows import count_windows, frame_windows
from densevit.data.video import read_clip, video_info
from densevit.data.video_stream import stream_frames
from densevit.data.video_writing import write_video
from densevit.errors import DataError
from densevit.tasks.video.sliding import SlidingWindows


def frames(count: int) -> Iterator[np.ndarray]:
    """Yield frames whose pixels are their number."""
    yield from (np.full((2, 3, 3), number, np.uint8) for number in range(count))


def windows(count: int, length: int, stride: int) -> list[tuple[int, int, list[int]]]:
    """Return start, stop and the numbers of the frames of each window."""
    found = frame_windows(frames(count), length, stride, lambda n: range(0, n, 2))
    return [(w.start, w.stop, w.clip[:, 0, 0, 0].tolist()) for w in found]


def test_windows_overlap_and_the_last_ends_with_the_video() -> None:
    assert windows(11, length=4, stride=2) == [
        (0, 4, [0, 2]),
        (2, 6, [2, 4]),
        (4, 8, [4, 6]),
        (6, 10, [6, 8]),
        (7, 11, [7, 9]),
    ]


@pytest.mark.parametrize(
    ("count", "spans"),
    [
        (1, [(0, 1)]),
        (3, [(0, 3)]),
        (4, [(0, 4)]),
        (5, [(0, 4), (1, 5)]),
        (8, [(0, 4), (3, 7), (4, 8)]),
        (10, [(0, 4), (3, 7), (6, 10)]),
    ],
)
def test_short_videos_are_one_window_and_no_frame_is_left_out(count: int, spans: list[tuple[int, int]]) -> None:
    assert [found[:2] for found in windows(count, length=4, stride=3)] == spans
    assert count_windows(count, 4, 3) == len(spans)


def test_windows_may_leave_gaps() -> None:
    assert [found[:2] for found in windows(13, length=2, stride=5)] == [(0, 2), (5, 7), (10, 12), (11, 13)]


def test_numbers_beyond_a_window_mean_its_ends() -> None:
    (window,) = frame_windows(frames(3), 5, 1, lambda n: [-2, 0, 1, 7])
    assert window.clip[:, 0, 0, 0].tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize(("length", "stride"), [(0, 1), (2, 0)])
def test_lengths_are_positive(length: int, stride: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        list(frame_windows(frames(3), length, stride, range))


def test_no_more_frames_are_kept_than_a_window_spans() -> None:
    alive: set[int] = set()
    most = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal most
        for number, frame in enumerate(frames(200)):
            alive.add(number)
            weakref.finalize(frame, alive.discard, number)
            yield frame
            most = max(most, len(alive))

    for _ in frame_windows(counted(), 8, 4, range):
        pass
    assert most <= 8 + 2, "one is being read, and one still has its name"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Return a video of 40 frames of 48 x 64 at 10 per second, each of another grey."""
    write_video(tmp_path / "a.mp4", (np.full((48, 64, 3), 6 * n, np.uint8) for n in range(40)), 10)
    return tmp_path / "a.mp4"


def test_a_stream_gives_the_frames_of_the_file(video: Path) -> None:
    streamed = np.stack(list(stream_frames(video)))
    clip = read_clip(video, lambda info: range(info.frames)).permute(0, 2, 3, 1).numpy()
    assert streamed.shape == (40, 48, 64, 3)
    assert np.abs(streamed.astype(int) - clip).max() <= 2
    assert np.abs(streamed.mean(axis=(1, 2, 3)) - 6 * np.arange(40)).max() < 3


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"short_side": 24}, (24, 32, 3)),
        ({"short_side": 96}, (48, 64, 3)),
        ({"longest": 16}, (12, 16, 3)),
        ({"longest": 100}, (48, 64, 3)),
        ({"short_side": 24, "longest": 16}, (12, 16, 3)),
    ],
)
def test_frames_are_shrunk_as_they_are_decoded(video: Path, options: dict[str, int], shape: tuple[int, ...]) -> None:
    assert next(stream_frames(video, **options)).shape == shape


def cut(video: Path, packets: int) -> Path:
    """Write the first packets as Matroska, which tells no number of frames."""
    out = video.with_suffix(".mkv")
    with av.open(str(video)) as source, av.open(str(out), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux() if p.size):
            packet.stream = stream
            target.mux(packet)
            if number + 1 == packets:
                break
    return out


def test_a_stream_of_fewer_frames_than_promised_is_an_error(video: Path) -> None:
    whole = video.read_bytes()
    video.write_bytes(whole[: int(0.6 * len(whole))])
    with pytest.raises(DataError, match=r"a\.mp4: .*replace or remove the file"):
        list(stream_frames(video))


def test_a_file_that_tells_no_number_of_frames_is_read_to_its_end(video: Path) -> None:
    assert 20 <= len(list(stream_frames(cut(video, 30)))) <= 30


@pytest.mark.parametrize("name", ["uneven.mp4", "uneven.mkv", "uneven.webm", "variable.mkv", "fragments.mp4", "a.ts"])
def test_a_whole_video_is_read_to_its_end_whatever_its_rate_or_format(
    numbered: Callable[[str], Path], frames_of: Callable[[Path], np.ndarray], name: str
) -> None:
    path = numbered(name)
    assert len(list(stream_frames(path))) == len(frames_of(path)) == video_info(path).frames


def test_sound_may_go_on_after_the_last_frame(tmp_path: Path, write_numbered: Callable[..., Path]) -> None:
    assert len(list(stream_frames(write_numbered(tmp_path / "a.mkv", count=30, sound=6)))) == 30


@pytest.mark.parametrize("name", ["a.mkv", "uneven.mkv", "uneven.webm", "vp8.webm", "a.avi"])
def test_a_truncated_video_is_no_stream(
    numbered: Callable[[str], Path], write_numbered: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    whole = (write_numbered(path, codec="mpeg4") if name == "a.avi" else numbered(name)).read_bytes()
    for share in (0.3, 0.6, 0.8):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DataError, match=rf"{re.escape(name)}: .*replace or remove the file"):
            list(stream_frames(path))


@pytest.mark.parametrize("name", ["uneven.mp4", "uneven.mkv"])
def test_windows_of_a_variable_video_end_when_it_does(numbered: Callable[[str], Path], name: str) -> None:
    windows = SlidingWindows({"sampling": dict(type="SegmentSampling", frames=2)}, window=1.0)
    done: list[float] = []
    timeline = windows.predict(numbered(name), lambda clips: [torch.zeros(2)] * len(clips), 4, done.append)
    assert timeline.times[-1, 1] == pytest.approx(3.6, abs=0.1)  # seconds
    assert timeline.times[0, 1] == pytest.approx(1, abs=0.05)
    assert sum(done) == pytest.approx(1)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), (b"", "an empty file"), (b"text", "damaged or no video")]
)
def test_what_is_no_video_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "b.mp4").write_bytes(content)
    with pytest.raises(DataError, match=rf"b\.mp4: {message}"):
        next(stream_frames(tmp_path / "b.mp4"))
