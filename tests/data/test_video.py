"""The frames that are asked for are the frames that come, from every kind of file and by either decoder."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import resize
from torchvision.tv_tensors import Video

from densevit.data import video, video_packets
from densevit.data.video import VideoInfo, read_clip, video_info

Numbered = Callable[[str], Path]
FramesOf = Callable[[Path], np.ndarray]
BY_DECORD = [
    *("gop250.mp4", "gop12.mp4", "b_frames.mp4", "variable.mp4", "gap.mp4", "late.mp4", "fragments.mp4"),
    *("full_range.mp4", "gray.mp4", "odd.mp4", "a.mkv", "variable.mkv", "vp9.webm", "odd.webm", "one.mp4"),
    "hevc_closed.mp4",
]
BY_PYAV = [
    *("same_times.mp4", "open_groups.mp4", "refresh.mp4", "h264_10_bits.mp4", "mpeg4.mp4", "mpeg4.avi"),
    *("mpeg2.mpg", "a.ts", "vp8.webm", "av1.mp4", "hevc.mp4", "hevc_10_bits.mp4"),
]


@pytest.fixture(params=["decord", "pyav"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let decord read what suits it, or nothing."""
    if request.param == "decord" and video.decord is None:
        pytest.skip("decord is not installed")
    monkeypatch.setattr(video, "FIRST", request.param)
    return str(request.param)


def pixels(clip: torch.Tensor) -> np.ndarray:
    return clip.permute(0, 2, 3, 1).numpy()


def test_a_clip_is_uint8_rgb_frames_first(numbered: Numbered, decoder: str) -> None:
    clip = read_clip(numbered("gop12.mp4"), lambda info: [0, 5])
    assert isinstance(clip, Video)
    assert (clip.shape, clip.dtype) == ((2, 3, 64, 96), torch.uint8)
    assert clip[0, 0, :, -3:].float().mean() > 200 > 55 > clip[0, 0, :, :3].float().mean()  # red runs to the right


@pytest.mark.parametrize("name", [*BY_DECORD, *BY_PYAV])
def test_any_frames_in_any_order_are_those_of_decoding_all(
    numbered: Numbered, frames_of: FramesOf, number_of: Callable[[np.ndarray], int], decoder: str, name: str
) -> None:
    frames = frames_of(numbered(name))
    chosen = np.random.default_rng(0).integers(-4, len(frames) + 4, 24)  # unsorted, repeated, beyond the ends
    seen: list[VideoInfo] = []
    clip = pixels(read_clip(numbered(name), lambda info: seen.append(info) or chosen))
    clamped = chosen.clip(0, len(frames) - 1)
    assert seen[0].frames == len(frames)
    assert [number_of(frame) for frame in clip] == clamped.tolist()
    assert np.abs(clip - frames[clamped].astype(int)).mean() < 1.5  # decord rounds colours of odd sizes otherwise


@pytest.mark.parametrize("name", [*BY_DECORD, *BY_PYAV])
def test_decord_reads_no_file_in_which_it_would_find_other_frames(
    numbered: Numbered, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if video.decord is None:
        pytest.skip("decord is not installed")
    used = []
    by_decord = video._by_decord
    monkeypatch.setattr(video, "FIRST", "decord")
    monkeypatch.setattr(video, "_by_decord", lambda *args: used.append(result := by_decord(*args)) or result)
    read_clip(numbered(name), lambda info: [0])
    assert [frames is not None for frames in used] == [True] * (name in BY_DECORD)


def test_frames_are_checked_against_what_decord_sees(numbered: Numbered, monkeypatch: pytest.MonkeyPatch) -> None:
    if video.decord is None:
        pytest.skip("decord is not installed")
    path, read = numbered("gop12.mp4"), video.decord.VideoReader
    expected = read_clip(path, lambda info: [7, 60])
    monkeypatch.setattr(video, "FIRST", "decord")
    for broken in ("__len__", "get_frame_timestamp", "get_batch"):
        method = {
            "__len__": lambda self: 79,
            "get_frame_timestamp": lambda self, which: np.zeros((len(which), 2)),
            "get_batch": lambda self, which: (_ for _ in ()).throw(video.decord.DECORDError("Unable to seek")),
        }[broken]
        monkeypatch.setattr(video.decord, "VideoReader", type("Broken", (read,), {broken: method}))
        assert torch.equal(read_clip(path, lambda info: [7, 60]), expected)


@pytest.mark.parametrize("turned", [90, 180, -90])
def test_a_video_of_a_turned_phone_is_upright(
    tmp_path: Path, write_numbered: Callable[..., Path], frames_of: FramesOf, decoder: str, turned: int
) -> None:
    path = write_numbered(tmp_path / "phone.mp4", count=12, turned=turned)
    upright = np.rot90(frames_of(path)[[3, 9]], turned // 90, axes=(1, 2))
    seen: list[VideoInfo] = []
    clip = pixels(read_clip(path, lambda info: seen.append(info) or [3, 9]))
    assert np.array_equal(clip, upright)
    assert (seen[0].height, seen[0].width) == upright.shape[1:3]
    small = read_clip(path, lambda info: [3], short_side=32)
    assert small.shape[2:] == ((32, 48) if turned == 180 else (48, 32))


@pytest.mark.parametrize(
    ("name", "size"), [("b_frames.mp4", (32, 48)), ("odd.mp4", (32, 48)), ("av1.mp4", (32, 48)), ("a.mkv", (50, 75))]
)
def test_frames_are_shrunk_to_a_short_side_as_a_resize_would(
    numbered: Numbered, frames_of: FramesOf, decoder: str, name: str, size: tuple[int, int]
) -> None:
    clip = read_clip(numbered(name), lambda info: [0, 21], short_side=size[0])
    full = torch.from_numpy(frames_of(numbered(name))[[0, 21]]).permute(0, 3, 1, 2)
    assert clip.shape == (2, 3, *size)
    assert (clip.float() - resize(full, list(size), antialias=True).float()).abs().mean() < 5


def test_frames_that_are_small_already_are_kept(numbered: Numbered, decoder: str) -> None:
    path = numbered("gop12.mp4")
    assert torch.equal(read_clip(path, lambda i: [3], short_side=65), read_clip(path, lambda i: [3]))


def test_both_decoders_shrink_alike(numbered: Numbered, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read_clip(numbered("gop12.mp4"), lambda info: [2, 70], short_side=40).float()
    monkeypatch.setattr(video, "FIRST", "decord")
    assert (first - read_clip(numbered("gop12.mp4"), lambda info: [2, 70], short_side=40).float()).abs().mean() < 2


def test_only_the_groups_of_the_frames_are_decoded(numbered: Numbered) -> None:
    with video_packets.open_video(numbered("gop12.mp4")) as (container, stream):
        index = video_packets.read_index("", container, stream)
    assert index.keys.tolist() == list(range(0, 80, 12))
    spans = list(index.spans({3, 50, 51, 74}))
    assert [first for first, _ in spans] == [0, 48, 72]
    assert sum(last - first + 1 for first, last in spans) <= 20
    assert len(list(index.spans({12, 13, 20}))) == 1


def test_packets_that_are_too_large_to_hold_are_read_again(
    numbered: Numbered, monkeypatch: pytest.MonkeyPatch, number_of: Callable[[np.ndarray], int]
) -> None:
    monkeypatch.setattr(video_packets, "HELD", 3000)
    for name in ("gop12.mp4", "mpeg4.avi"):
        assert [number_of(frame) for frame in pixels(read_clip(numbered(name), lambda info: [70, 4, 5]))] == [70, 4, 5]


@pytest.mark.parametrize(
    ("name", "fps"), [("gop12.mp4", 25), ("same_times.mp4", 25), ("gap.mp4", 25), ("a.mkv", 25), ("mpeg4.avi", 25)]
)
def test_the_header_tells_frames_and_rate(numbered: Numbered, name: str, fps: float) -> None:
    info = video_info(numbered(name))
    assert (info.height, info.width) == (64, 96)
    assert info.fps == pytest.approx(fps)
    if name != "gap.mp4":
        assert info.frames == 80


@pytest.mark.parametrize("name", ["uneven.mp4", "uneven.mkv", "uneven.webm"])
def test_the_rate_of_a_variable_video_is_its_frames_by_the_time_they_take(numbered: Numbered, name: str) -> None:
    with av.open(str(numbered(name))) as file:
        times = [float(packet.pts * packet.time_base) for packet in file.demux(video=0) if packet.size]
    rate = (len(times) - 1) / (max(times) - min(times))
    seen = [video_info(numbered(name))]
    read_clip(numbered(name), lambda info: seen.append(info) or [0])
    for info in seen:
        assert info.frames == len(times) == 60
        assert info.fps == pytest.approx(rate, rel=0.02)


def test_a_pause_of_a_recording_is_not_in_its_rate(tmp_path: Path, write_numbered: Callable[..., Path]) -> None:
    paused = write_numbered(tmp_path / "paused.mkv", times=lambda n: 50 * n + 9000 * (n > 30))
    assert video_info(paused).fps == pytest.approx(20)
