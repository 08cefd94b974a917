"""Clips of motion are deterministic, repaired when damaged, and not to be told by one frame."""

from pathlib import Path

import numpy as np
import pytest

from densevit.data.motion import CLASSES, FPS, INTRA, STEPS, draw_clip, make_motion
from densevit.data.video import read_clip, video_info
from densevit.data.video_writing import write_video
from densevit.errors import DataError


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.*") if p.is_file()}


def decoded(path: Path) -> np.ndarray:
    return read_clip(path, lambda info: range(info.frames)).permute(0, 2, 3, 1).numpy()


def drawn(number: int, label: int | None = None) -> np.ndarray:
    return draw_clip(np.random.default_rng(number), number % len(CLASSES) if label is None else label)


def test_files_are_in_the_layout_of_lists(tmp_path: Path) -> None:
    make_motion(tmp_path, train=5, val=2)
    videos = {f"videos/train_{i:05d}.mp4" for i in range(5)} | {f"videos/val_{i:05d}.mp4" for i in range(2)}
    assert contents(tmp_path).keys() == videos | {"labels.txt", "train.txt", "val.txt", "demo.json"}
    assert (tmp_path / "labels.txt").read_text() == "left\nright\nup\ndown\n"
    lines = (tmp_path / "train.txt").read_text().splitlines()
    assert lines == [f"train_{i:05d}.mp4 {label}" for i, label in enumerate([0, 1, 2, 3, 0])]
    assert (tmp_path / "val.txt").read_text() == "val_00000.mp4 0\nval_00001.mp4 1\n"
    info = video_info(tmp_path / "videos/train_00000.mp4")
    assert (info.frames, info.fps, info.height, info.width) == (16, FPS, 64, 64)


def test_files_are_small_and_near_what_was_drawn(tmp_path: Path) -> None:
    make_motion(tmp_path, train=4, val=0)
    for number in range(4):
        path = tmp_path / f"videos/train_{number:05d}.mp4"
        original = draw_clip(np.random.default_rng((0, 0, number)), number)
        assert np.abs(decoded(path).astype(int) - original).mean() < 6
        assert path.stat().st_size < 40_000


def test_clips_depend_on_seed_split_and_number_only(tmp_path: Path) -> None:
    make_motion(tmp_path / "a", train=2, val=2)
    make_motion(tmp_path / "b", train=3, val=2)
    make_motion(tmp_path / "c", train=2, val=2, seed=1)
    a, b, c = (
        {k: v for k, v in contents(tmp_path / name).items() if k.startswith("videos")} for name in ("a", "b", "c")
    )
    assert {k: b[k] for k in a} == a
    assert len({*a.values(), *c.values()}) == len(a) + len(c)


def test_complete_data_are_not_written_again(tmp_path: Path) -> None:
    make_motion(tmp_path, train=2, val=1)
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")}
    make_motion(tmp_path, train=2, val=1)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")} == times


def test_damaged_missing_and_surplus_files_are_put_right(tmp_path: Path) -> None:
    make_motion(tmp_path, train=5, val=1)
    before = contents(tmp_path)
    for name, kept in [("videos/train_00001.mp4", 0), ("videos/train_00002.mp4", 100), ("train.txt", 20)]:
        (tmp_path / name).write_bytes(before[name][:kept])
    halved = tmp_path / "videos/train_00003.mp4"
    halved.write_bytes(before["videos/train_00003.mp4"][: halved.stat().st_size // 2])
    (tmp_path / "videos/train_00004.mp4").unlink()
    (tmp_path / "videos/.train_00004.mp4.77").touch()
    (tmp_path / ".val.txt.77").touch()
    make_motion(tmp_path, train=5, val=1)
    assert contents(tmp_path) == before
    make_motion(tmp_path, train=1, val=1)
    assert len(list((tmp_path / "videos").iterdir())) == 2


def test_another_seed_replaces_all_clips(tmp_path: Path) -> None:
    make_motion(tmp_path / "a", train=2, val=1, seed=0)
    make_motion(tmp_path / "a", train=2, val=1, seed=5)
    make_motion(tmp_path / "b", train=2, val=1, seed=5)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("name", ["videos/holiday.mp4", "train.txt"])
def test_data_of_the_user_are_not_touched(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mine")
    with pytest.raises(DataError, match="not generated here"):
        make_motion(tmp_path, train=1, val=1)
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("label", range(4))
def test_objects_move_the_way_of_their_class(label: int) -> None:
    for number in range(5):
        clip = drawn(number, label).astype(float)
        still = np.median(clip, axis=0)  # an object is in one place for less than half of the time
        moving = np.abs(clip - still).sum(axis=-1) * (np.abs(clip - still).max(axis=-1) > 40)
        across, along = moving.sum(axis=1), moving.sum(axis=2)  # (T, W), (T, H)
        steps = [(step, 0) for step in (-3, -2, -1, 1, 2, 3)] + [(0, step) for step in (-3, -2, -1, 1, 2, 3)]
        fits = [sum((np.roll(a, s, axis=1)[:-1] * a[1:]).sum() for a, s in zip((across, along), step, strict=True))
                for step in steps]  # fmt: skip
        x, y = steps[int(np.argmax(fits))]
        assert (np.sign(x), np.sign(y)) == STEPS[label], (number, label)


def test_the_first_frame_is_the_same_whatever_the_class() -> None:
    for number in range(5):
        clips = [drawn(number, label) for label in range(4)]
        assert all(np.array_equal(clip[0], clips[0][0]) for clip in clips)
        assert all(not np.array_equal(clip[1], clips[0][1]) for clip in clips[1:])


def test_a_frame_is_coded_alike_whatever_comes_before_and_after_it(tmp_path: Path) -> None:
    for number in range(8):
        clip = drawn(number)
        order = np.random.default_rng(number).permutation(len(clip))
        for name, frames in [("straight", clip), ("back", clip[::-1]), ("mixed", clip[order])]:
            write_video(tmp_path / f"{name}.mp4", frames, FPS, INTRA)
        straight = decoded(tmp_path / "straight.mp4")
        assert np.array_equal(straight[::-1], decoded(tmp_path / "back.mp4"))
        assert np.array_equal(straight[order], decoded(tmp_path / "mixed.mp4"))


def described(frame: np.ndarray) -> np.ndarray:
    """Return the coarse picture of a frame, and the strength and skew of its gradients across and down."""
    gray = frame.astype(float).mean(axis=-1)
    differences = [np.diff(gray, axis=axis) for axis in (0, 1)]
    moments = [(np.abs(d) ** power * np.sign(d) ** power).mean() for d in differences for power in (2, 3)]
    return np.array([1, *gray.reshape(8, 8, 8, 8).mean(axis=(1, 3)).ravel(), *moments, *np.ptp(frame, axis=(0, 1))])


def test_the_last_frame_alone_does_not_tell_the_class() -> None:
    features = np.stack([described(drawn(number)[-1]) for number in range(280)])
    features[:, 1:] = (features[:, 1:] - features[:, 1:].mean(axis=0)) / features[:, 1:].std(axis=0)
    truth = np.arange(280) % 4
    known, asked = features[:160], features[160:]
    weights = np.linalg.solve(known.T @ known + 10 * np.eye(known.shape[1]), known.T @ np.eye(4)[truth[:160]])
    accuracy = ((asked @ weights).argmax(axis=1) == truth[160:]).mean()
    assert 0.12 < accuracy < 0.38  # 0.25 +- 3.3 standard deviations
