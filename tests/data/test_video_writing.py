"""Videos are written whole, with every frame, in colours near the original."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.codec.codec import UnknownCodecError

from densevit.data.video import read_clip, video_info
from densevit.data.video_writing import write_video
from densevit.errors import DataError, InstallationError


def ramps(height: int, width: int, count: int) -> list[np.ndarray]:
    """Return frames whose colours change slowly from side to side and from frame to frame."""
    red, green = np.linspace(0, 255, width), np.linspace(255, 0, height)[:, None]
    grid = [np.broadcast_to(v, (height, width)) for v in (red, green)]
    return [np.stack([*grid, np.full((height, width), 10.0 * i)], axis=-1).astype(np.uint8) for i in range(count)]


def decoded(path: Path) -> np.ndarray:
    return read_clip(path, lambda info: range(info.frames)).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 64), (48, 63), (47, 63), (1, 1)])
def test_frames_come_back_in_number_and_colour_and_odd_sides_grow_by_a_pixel(
    height: int, width: int, tmp_path: Path
) -> None:
    frames = ramps(height, width, 11)
    write_video(tmp_path / "new/folder/a.mp4", frames, fps=10)
    found = decoded(tmp_path / "new/folder/a.mp4")
    assert found.shape == (11, height + height % 2, width + width % 2, 3)
    errors = np.abs(found[:, :height, :width].astype(int) - np.stack(frames))
    assert errors.mean() < 3
    assert errors.max() < 30
    assert np.abs(found[:, -1].astype(int) - found[:, height - 1]).mean() < 3, "the last row is repeated"


@pytest.mark.parametrize("fps", [15, 12.5, Fraction(30000, 1001), 30000 / 1001])
def test_the_rate_of_the_frames_is_kept(fps: float, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", ramps(16, 16, 8), fps)
    assert video_info(tmp_path / "a.mp4").fps == pytest.approx(float(fps), rel=1e-9)
    with av.open(str(tmp_path / "a.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([i / float(fps) for i in range(8)], abs=1e-4)


def test_browsers_can_play_it(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", ramps(16, 16, 8), 10)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the table comes first, so that it plays while it loads"


def test_gray_stays_gray(tmp_path: Path) -> None:
    levels = [np.full((16, 16, 3), v, np.uint8) for v in (0, 60, 128, 200, 255)]
    write_video(tmp_path / "a.mp4", levels, 10)
    assert np.abs(decoded(tmp_path / "a.mp4").astype(int) - np.stack(levels)).max() <= 3


def test_options_go_to_the_encoder(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "fine.mp4", noise, 10, {"crf": "10"})
    write_video(tmp_path / "coarse.mp4", noise, 10, {"crf": "40"})
    assert (tmp_path / "coarse.mp4").stat().st_size < 0.3 * (tmp_path / "fine.mp4").stat().st_size


def test_what_was_there_stays_until_all_frames_are_written(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, ramps(16, 16, 3), 10)
    before = path.read_bytes()

    def failing() -> Iterator[np.ndarray]:
        yield from ramps(16, 16, 30)
        assert path.read_bytes() == before
        raise RuntimeError("the network failed")

    with pytest.raises(RuntimeError, match="the network failed"):
        write_video(path, failing(), 10)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    write_video(path, ramps(16, 16, 5), 10)
    assert len(decoded(path)) == 5


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([np.zeros((8, 8), np.uint8)], r"frame 0 must be uint8 of shape"),
        ([np.zeros((8, 8, 3), np.float32)], r"frame 0 must be uint8"),
        ([*ramps(8, 8, 2), *ramps(8, 10, 1)], r"frame 2 must be uint8 of shape \(8, 8, 3\), not uint8 \(8, 10, 3\)"),
        ([], "there are no frames"),
    ],
)
def test_what_is_no_video_leaves_no_file(frames: list[np.ndarray], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "a.mp4", frames, 10)
    assert list(tmp_path.iterdir()) == []


def test_no_frames_are_an_error_of_the_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.mp4"):
        write_video(tmp_path / "a.mp4", [], 10)


def test_a_rate_of_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fps must be positive"):
        write_video(tmp_path / "a.mp4", ramps(8, 8, 1), 0)


def test_a_missing_encoder_is_told_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(name: str, mode: str) -> None:
        raise UnknownCodecError(name)

    monkeypatch.setattr(av, "Codec", lacking)
    with pytest.raises(InstallationError, match=r"libx264.*pip install"):
        write_video(tmp_path / "a.mp4", ramps(8, 8, 1), 10)
    assert list(tmp_path.iterdir()) == []
