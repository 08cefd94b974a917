"""Videos that paint on each frame its number, written by PyAV in every way that files come in."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

VP9 = dict(codec="libvpx-vp9", options={"cpu-used": "8", "deadline": "realtime", "g": "20"})
TIMES = np.cumsum(np.random.default_rng(0).integers(10, 80, 200))
STEPS = np.random.default_rng(1).choice([10, 20, 30, 200], 60, p=[0.4, 0.3, 0.1, 0.2])
UNEVEN: dict[str, Any] = dict(count=60, times=lambda n: int(STEPS[1 : n + 1].sum()))  # 16.5 frames in a second
FILES: dict[str, dict[str, Any]] = {
    "gop250.mp4": dict(options={"g": "250"}),
    "gop12.mp4": dict(options={"g": "12"}),
    "b_frames.mp4": dict(options={"g": "40", "bf": "16", "b-adapt": "0", "sc_threshold": "0"}),
    "open_groups.mp4": dict(options={"g": "20", "x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"}),
    "refresh.mp4": dict(options={"x264-params": "intra-refresh=1:keyint=20:scenecut=0"}),
    "variable.mp4": dict(times=lambda n: int(TIMES[n]), options={"g": "20"}),
    "gap.mp4": dict(times=lambda n: 40 * n + 9000 * (n > 30), options={"g": "20"}),
    "late.mp4": dict(times=lambda n: 40 * n + 5000),
    "same_times.mp4": dict(times=lambda n: 0, base=25, options={"g": "20"}),
    "fragments.mp4": dict(container={"movflags": "frag_keyframe+empty_moov"}, options={"g": "20"}),
    "hevc.mp4": dict(count=30, codec="libx265", options={"x265-params": "log-level=none:keyint=10:open-gop=1"}),
    "hevc_closed.mp4": dict(count=30, codec="libx265", options={"x265-params": "log-level=none:keyint=10:open-gop=0"}),
    "hevc_10_bits.mp4": dict(
        count=30, codec="libx265", pixels="yuv420p10le", options={"x265-params": "log-level=none"}
    ),
    "h264_10_bits.mp4": dict(pixels="yuv420p10le"),
    "full_range.mp4": dict(pixels="yuvj420p"),
    "gray.mp4": dict(pixels="gray"),
    "odd.mp4": dict(pixels="yuv444p", height=67, width=101),
    "mpeg4.mp4": dict(codec="mpeg4", options={"bf": "2", "g": "12"}),
    "av1.mp4": dict(count=40, codec="libsvtav1", options={"preset": "13", "g": "16", "svtav1-params": "lookahead=0"}),
    "a.mkv": dict(options={"g": "20"}),
    "variable.mkv": dict(times=lambda n: int(TIMES[n]), options={"g": "20"}),
    "uneven.mp4": UNEVEN,
    "uneven.mkv": UNEVEN,
    "uneven.webm": VP9 | UNEVEN,
    "vp9.webm": VP9,
    "odd.webm": dict(VP9, height=67, width=101),
    "vp8.webm": dict(codec="libvpx", options={"cpu-used": "8", "deadline": "realtime", "auto-alt-ref": "1"}),
    "mpeg4.avi": dict(codec="mpeg4", options={"bf": "2", "g": "12"}),
    "mpeg2.mpg": dict(codec="mpeg2video", options={"bf": "2"}),
    "a.ts": dict(options={"g": "20"}),
    "one.mp4": dict(count=1),
}


def paint(number: int, height: int, width: int) -> np.ndarray:
    """Return a frame with ten blocks for the bits of its number, on colours that run right and down."""
    y, x = np.mgrid[:height, :width]
    frame = np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 128)], axis=2).astype(np.uint8)
    for bit in range(10):
        top, left = bit // 5 * height // 2 + height // 8, bit % 5 * width // 5 + width // 25
        frame[top : top + height // 4, left : left + width // 8] = 235 if number >> bit & 1 else 20
    return frame


@pytest.fixture(scope="session")
def number_of() -> Callable[[np.ndarray], int]:
    """Return what reads the number that is painted on a frame ``(H, W, 3)``."""

    def read(frame: np.ndarray) -> int:
        height, width = frame.shape[:2]
        blocks = [(bit // 5 * height // 2 + height // 4, bit % 5 * width // 5 + width // 10) for bit in range(10)]
        return sum(int(frame[y, x].mean() > 128) << bit for bit, (y, x) in enumerate(blocks))

    return read


def write(
    path: Path,
    count: int = 80,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pixels: str = "yuv420p",
    height: int = 64,
    width: int = 96,
    times: Callable[[int], int] | None = None,
    base: int = 1000,
    container: dict[str, str] | None = None,
    sound: float = 0,
    turned: int = 0,
) -> Path:
    """Write a video of 25 frames per second, or of given times in parts of a second, with some seconds of silence."""
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=25, options=options or {})
        stream.pix_fmt, stream.height, stream.width = pixels, height, width
        if times:
            stream.codec_context.time_base = Fraction(1, base)
        if turned:
            stream.set_display_rotation(turned)
        track = file.add_stream("aac", rate=16000, layout="mono") if sound else None
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(paint(number, height, width), "rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = (times(number), Fraction(1, base)) if times else (number, Fraction(1, 25))
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        for number in range(int(sound * 16000 / 1024)):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.sample_rate, silence.pts, silence.time_base = 16000, number * 1024, Fraction(1, 16000)
            file.mux(track.encode(silence))
        if track:
            file.mux(track.encode())
    return path


@pytest.fixture
def write_numbered() -> Callable[..., Path]:
    return write


@pytest.fixture(scope="session")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what gives a file of FILES, written when it is first asked for."""
    folder = tmp_path_factory.mktemp("numbered")

    def get(name: str) -> Path:
        path = folder / name
        if not path.exists():
            try:
                write(path, **FILES[name])
            except (av.FFmpegError, av.codec.codec.UnknownCodecError) as error:
                path.unlink(missing_ok=True)
                pytest.skip(f"this PyAV cannot write {name}: {error}")
        return path

    return get


@pytest.fixture(scope="session")
def frames_of() -> Callable[[Path], np.ndarray]:
    """Return what decodes all frames of a file in their order, ``(T, H, W, 3)``, as they are stored."""

    def decode(path: Path) -> np.ndarray:
        with av.open(str(path)) as file:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])

    return decode
