"""What is told and drawn of clips and of long videos."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from densevit.data.class_prediction import ClassPrediction
from densevit.data.contact_sheet import contact_sheet, heat_sheet
from densevit.data.video import video_info
from densevit.data.video_writing import write_video
from densevit.errors import ConfigError, DataError
from densevit.tasks.video import ClipPrediction
from densevit.tasks.video.annotated import BAND, write_annotated
from densevit.tasks.video.sliding import SlidingWindows
from densevit.tasks.video.timeline import Timeline, thumbnails

CLASSES = ["walk", "run", "jump"]
PALETTE = [(255, 0, 0), (0, 160, 0), (0, 0, 255)]
TIMES = torch.tensor([[0.0, 2.0], [1.0, 3.0], [2.0, 4.0], [2.5, 4.5]], dtype=torch.float64)
SCORES = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.15, 0.8, 0.05], [0.6, 0.4, 0.0]])


def timeline(windows: int = 4) -> Timeline:
    return Timeline(TIMES[:windows], SCORES[:windows])


def grey(path: Path, frames: int, height: int = 48, width: int = 64, fps: float = 10) -> Path:
    """Write a video each of whose frames has another grey."""
    write_video(path, (np.full((height, width, 3), 4 * n, np.uint8) for n in range(frames)), fps)
    return path


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]


def near(pixels: np.ndarray, colour: tuple[int, ...]) -> np.ndarray:
    """Say which pixels have a colour, but for what compression changes."""
    return np.abs(pixels - np.array(colour)).max(axis=-1) < 60


def test_each_window_lasts_where_its_middle_is_the_nearest() -> None:
    assert timeline().edges() == [0, 1.5, 2.5, 3.25, 4.5]
    assert timeline(1).edges() == [0, 2]


def test_windows_with_the_same_top_class_are_one_segment() -> None:
    segments = timeline().segments()
    assert [segment[:3] for segment in segments] == [(0, 2.5, 0), (2.5, 3.25, 1), (3.25, 4.5, 0)]
    assert [segment.score for segment in segments] == pytest.approx([0.6, 0.8, 0.6])
    assert [segment[:3] for segment in timeline(1).segments()] == [(0, 2, 0)]


def test_the_table_of_segments_has_seconds_and_classes() -> None:
    lines = timeline().describe("a.mp4", CLASSES).splitlines()
    assert lines[0] == "a.mp4"
    assert [line.split() for line in lines[4:-1]] == [
        ["0.0", "2.5", "walk", "60.0%"],
        ["2.5", "3.2", "run", "80.0%"],
        ["3.2", "4.5", "walk", "60.0%"],
    ]


def test_of_very_many_segments_the_longest_are_printed_in_their_order() -> None:
    starts = torch.arange(100, dtype=torch.float64) ** 1.5
    flips = torch.eye(2)[torch.arange(100) % 2]
    text = Timeline(torch.stack([starts, starts + 1], dim=1), flips).describe("a.mp4", ["a", "b"])
    assert "the 40 longest of 100 segments" in text
    begins = [float(line.split()[0]) for line in text.splitlines()[4:-1]]
    assert len(begins) == 40
    assert begins == sorted(begins)
    assert begins[0] > 400


def test_the_json_has_start_end_and_scores_of_each_window(tmp_path: Path) -> None:
    summary = timeline().summary(CLASSES)
    json.dumps(summary)
    assert summary["class"] == "walk"
    assert summary["scores"]["run"] == pytest.approx(SCORES[:, 1].mean().item())
    assert summary["windows"][1] == {"start": 1.0, "end": 3.0, "scores": {"walk": 0.5, "run": 0.3, "jump": 0.2}}
    assert summary["segments"][1] == {"start": 2.5, "end": 3.25, "class": "run", "score": 0.8}
    saved = json.loads(timeline().save(tmp_path / "sub/a.b").read_text())["windows"]
    assert [(w["start"], w["end"]) for w in saved] == [tuple(pair) for pair in TIMES.tolist()]
    assert torch.equal(torch.tensor([w["scores"] for w in saved]), SCORES)


def test_curves_are_as_high_as_the_scores_and_the_band_has_the_top_classes() -> None:
    picture = timeline().draw([np.full((48, 64, 3), 100, np.uint8)] * 3, CLASSES, PALETTE, "a.mp4")
    assert picture.shape == (480, 1200, 3)
    left, width, band = 70, 900, 34 + 84 + 4 + 7
    for second, label in ((0.5, 0), (2.0, 0), (2.9, 1), (4.0, 0)):
        column = left + round(second / 4.5 * width)
        assert near(picture[band, column].astype(int), PALETTE[label])
        curves = picture[34 + 84 + 14 + 12 : 430, column].astype(int)
        heights = [np.flatnonzero(near(curves, colour)).mean() for colour in PALETTE[:2]]
        assert heights.index(min(heights)) == label, "the top class is above the others"


@pytest.mark.parametrize(("height", "width", "count"), [(144, 256, 5), (100, 100, 10), (1000, 10, 300), (10, 1000, 1)])
def test_as_many_thumbnails_are_drawn_as_there_is_place_for(height: int, width: int, count: int) -> None:
    assert thumbnails(height, width) == pytest.approx(count, abs=1 + 0.3 * count)


def test_a_class_that_is_never_probable_has_no_curve() -> None:
    scores = torch.zeros(4, 20)
    scores[:, 3], scores[:2, 7] = 0.9, 0.1
    assert Timeline(TIMES, scores)._shown() == [3, 7]


def test_an_annotated_video_has_all_frames_at_their_rate_beside_bars(tmp_path: Path) -> None:
    source = grey(tmp_path / "a.mp4", 33, fps=29.97)
    shares: list[float] = []
    out = tmp_path / "videos/a.mp4"
    write_annotated(source, out, [ClassPrediction(SCORES[0])], [float("inf")], CLASSES, PALETTE, shares.append)
    info = video_info(out)
    assert (info.frames, info.fps) == (33, pytest.approx(29.97))
    assert sum(shares) == pytest.approx(1)
    frames = decoded(out)
    for number, frame in enumerate(frames):
        assert np.abs(frame[:48, :64].mean() - 4 * number) < 6, "frames are in order"
    lengths = [near(frames[5][:, 64:], colour).sum(axis=1).max() for colour in PALETTE]
    assert lengths[0] == pytest.approx(0.7 * 180, abs=6)
    assert lengths[1] == pytest.approx(0.2 * 180, abs=6)
    with av.open(str(out)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].pix_fmt == "yuv420p"


def test_the_bars_are_those_of_the_time_and_a_mark_moves_on_the_band(tmp_path: Path) -> None:
    source = grey(tmp_path / "a.mp4", 45)
    shown = timeline()
    write_annotated(
        source, tmp_path / "b.mp4", shown.predictions(), shown.edges()[1:], CLASSES, PALETTE, lambda share: None
    )
    frames = decoded(tmp_path / "b.mp4")
    assert len(frames) == 45
    bars = [near(frame[:-BAND, 64:], PALETTE[1]).sum(axis=1).max() / 180 for frame in frames]
    for number, length in enumerate(bars):
        window = np.searchsorted(shown.edges()[1:-1], number / 10, side="right")
        assert length == pytest.approx(SCORES[window, 1].item(), abs=0.04), number
    marks = [int(frame[-BAND:].sum(axis=(0, 2)).argmin()) / frames[0].shape[1] for frame in frames]
    assert marks == pytest.approx([number / 45 for number in range(45)], abs=0.02)


def test_a_large_video_is_shrunk_and_its_texts_grow(tmp_path: Path) -> None:
    source = grey(tmp_path / "a.mp4", 2, height=1080, width=1920)
    out = tmp_path / "b.mp4"
    write_annotated(source, out, [ClassPrediction(SCORES[0])], [float("inf")], CLASSES, PALETTE, lambda share: None)
    info = video_info(out)
    assert info.height == 720
    assert 1280 + 2 * 180 < info.width <= 1280 + 2 * 1.5 * 200


def test_a_video_that_ends_too_early_leaves_no_annotated_one(tmp_path: Path) -> None:
    source = grey(tmp_path / "a.mp4", 40)
    source.write_bytes(source.read_bytes()[: int(0.5 * source.stat().st_size)])
    with pytest.raises(DataError, match=r"a\.mp4"):
        write_annotated(
            source, tmp_path / "b.mp4", [ClassPrediction(SCORES[0])], [1.0], CLASSES, PALETTE, lambda share: None
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4"]


@pytest.mark.parametrize(
    ("sampling", "window", "stride", "expected"),
    [
        ({"type": "DenseSampling", "frames": 8, "interval": 4}, None, None, (32, 16)),
        ({"type": "DenseSampling", "frames": 8, "interval": 4, "fps": 15}, None, None, (64, 32)),
        ({"type": "DenseSampling", "frames": 8, "interval": 1}, 0.1, None, (3, 1)),
        ({"type": "SegmentSampling", "frames": 16, "clips": 3}, None, None, (64, 32)),
        ({"type": "SegmentSampling", "frames": 16}, 2.0, 0.5, (60, 15)),
        ({"type": "SegmentSampling", "frames": 16}, None, 0.001, (64, 1)),
    ],
)
def test_a_window_is_what_the_sampling_takes_and_moves_by_half(
    sampling: dict[str, object], window: float | None, stride: float | None, expected: tuple[int, int]
) -> None:
    assert SlidingWindows({"sampling": sampling}, window, stride).in_frames(30) == expected


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_windows_are_positive_numbers_of_seconds(seconds: float) -> None:
    with pytest.raises(ConfigError, match="slide_stride must be a positive number of seconds"):
        SlidingWindows({"sampling": {"type": "SegmentSampling", "frames": 4}}, 1, seconds)


def test_windows_see_the_frames_that_the_sampling_takes_of_them(tmp_path: Path) -> None:
    source = grey(tmp_path / "a.mp4", 50)
    sampling = {"type": "DenseSampling", "frames": 4, "interval": 5, "clips": 2}
    seen: list[list[int]] = []
    sizes: list[int] = []

    def scores_of(clips: list[torch.Tensor]) -> list[torch.Tensor]:
        sizes.append(len(clips))
        seen.extend((clip.float().mean(dim=(1, 2, 3)) / 4).round().int().tolist() for clip in clips)
        return [torch.tensor([0.5, 0.5])] * len(clips)

    shares: list[float] = []
    found = SlidingWindows({"sampling": sampling}).predict(source, scores_of, 2, shares.append)
    starts = [0, 10, 20, 30]
    assert seen == [[start + 2 + 5 * i for i in range(4)] for start in starts], "the middle of each interval"
    assert found.times.tolist() == [[start / 10, (start + 20) / 10] for start in starts]
    assert sizes == [2, 2]
    assert sum(shares) == pytest.approx(1)


def test_a_sheet_of_attention_has_a_row_of_heat_below_each_row_of_frames() -> None:
    clip = torch.full((8, 3, 60, 80), 100, dtype=torch.uint8)
    heat = torch.zeros(8, 2, 2)
    heat[5, 0, 1] = 0.3
    sheet = heat_sheet(clip, clip[..., 10:70], heat, "bright is more")
    plain = contact_sheet(clip)
    assert np.array_equal(sheet[:120], plain[:120])
    assert np.array_equal(sheet[240:360], plain[120:])
    assert sheet.shape[0] == 2 * plain.shape[0] + 22
    hot = sheet[360:480].astype(int).sum(axis=2)
    hot[:, (sheet[360:480] == 255).all(axis=(0, 2))] = 0  # beside the crop
    row, column = np.unravel_index(hot.argmax(), hot.shape)
    assert row < 60, "the upper row of cells"
    assert 160 + 80 < column < 320, "the right cell of the second frame of four, which is the sixth"


def test_pictures_of_few_frames_are_as_wide_as_those() -> None:
    clip = torch.zeros(2, 3, 60, 80, dtype=torch.uint8)
    assert heat_sheet(clip, clip, torch.ones(2, 1, 1), "").shape == (262, 320, 3)


def test_a_caption_that_is_wider_than_the_frames_is_broken_into_lines() -> None:
    clip = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    short, long = (heat_sheet(clip, clip, torch.ones(2, 1, 1), "word " * count) for count in (3, 15))
    assert short.shape[1] == long.shape[1] == 240
    assert long.shape[0] > short.shape[0] + 22
    assert (long[:, -4:][240:] == 255).all(), "nothing is cut off"


def test_clips_are_saved_with_their_views(tmp_path: Path) -> None:
    views = torch.randn(6, 400).softmax(-1)
    path = ClipPrediction(views.mean(dim=0), views).save(tmp_path / "folder/a.b")
    assert path.name == "a.b.json"
    loaded = ClipPrediction.load(tmp_path / "folder/a.b")
    assert torch.equal(loaded.views, views)
    assert torch.equal(loaded.scores, views.mean(dim=0))
    path.write_text("{}")
    with pytest.raises(DataError, match=r"a\.b\.json: no scores of clips"):
        ClipPrediction.load(tmp_path / "folder/a.b")
