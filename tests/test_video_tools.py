"""The tools on videos, called as a user calls them."""

import json
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

import densevit
from densevit.data.video import read_clip, video_info
from densevit.data.video_writing import write_video
from densevit.errors import DataError
from densevit.registry import MODELS

TOOLS = Path(__file__).parents[1] / "tools"
TIMESFORMER = {"type": "TimeSformer", "dim": 16, "depth": 1, "num_heads": 2, "hidden": 32, "img_size": 32}


def write_clip(path: Path, frames: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 255, (6, 9, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    write_video(path, (np.roll(picture, 2 * n, axis=1) for n in range(frames)), 10)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Return a folder with two clips of 48 x 72, of 20 and 45 frames, and lists of them."""
    root = tmp_path / "data"
    for seed, (name, frames) in enumerate({"short": 20, "long": 45}.items()):
        write_clip(root / "videos" / f"{name}.mp4", frames, seed)
    (root / "val.txt").write_text("short.mp4 0\nlong.mp4 2\n")
    return root


@pytest.fixture
def path(videos: Path, tmp_path: Path) -> Path:
    """Return a config that tests a very small TimeSformer; random.pth beside it has its weights."""
    dataset = {
        "type": "ClipDataset",
        "data_root": str(videos),
        "ann_file": "val.txt",
        "classes": ["walk", "run", "jump"],
        "sampling": {"type": "DenseSampling", "frames": 4, "interval": 4},
        "transforms": [{"type": "ShortSideResize", "sizes": 32}, {"type": "CenterCrop", "size": 32}],
    }
    model = {
        "type": "DenseModel",
        "backbone": {**TIMESFORMER, "num_frames": 4, "token": True},
        "head": {"type": "VideoHead", "num_classes": 3},
        "precision": "fp32",
    }
    config = Config(
        {
            "default_scope": "densevit",
            "model": model,
            "test_dataloader": {"batch_size": 2, "num_workers": 0, "dataset": dataset},
            "test_cfg": {},
            "test_evaluator": {"type": "ClipAccuracy"},
        }
    )
    torch.manual_seed(0)
    net = MODELS.build(model)
    torch.nn.init.normal_(net.head.fc.weight)
    torch.save({"state_dict": net.state_dict()}, tmp_path / "random.pth")
    config.dump(tmp_path / "tiny.py")
    return tmp_path / "tiny.py"


def entries_of(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "predictions.json").read_text())


def test_a_clip_gets_a_table_a_picture_and_an_annotated_video(  # type: ignore[no-untyped-def]
    call, capsys: pytest.CaptureFixture[str], path: Path, videos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert call("predict", path, tmp_path / "random.pth", videos / "videos/long.mp4", "--out", out) == 0
    (entry,) = entries_of(out)
    printed = capsys.readouterr().out
    assert "probability" in printed
    for name, score in entry["scores"].items():
        assert f"{score:.1%}" in next(line for line in printed.splitlines() if line.startswith(name))
    assert "1 of 1 inputs predicted: overlays/, outputs/, videos/, predictions.json" in printed
    info = video_info(entry["video"])
    assert (info.frames, info.fps) == (45, 10)
    assert info.width > 72 + 180
    assert sum(json.loads(Path(entry["output"]).read_text())["scores"]) == pytest.approx(1, abs=1e-5)
    width, height = Image.open(entry["overlay"]).size
    assert width > 4 * 160 + 180, "four frames and the bars"
    assert height == 2 * 120 + 22, "frames, and heat maps of attention with a caption"


def test_many_inputs_get_a_line_each_and_bad_ones_are_skipped(  # type: ignore[no-untyped-def]
    call, capsys: pytest.CaptureFixture[str], path: Path, videos: Path, tmp_path: Path
) -> None:
    (videos / "videos/broken.mp4").write_bytes((videos / "videos/long.mp4").read_bytes()[:2000])
    (videos / "videos/empty.mp4").write_bytes(b"")
    out = tmp_path / "out"
    assert call("predict", path, tmp_path / "random.pth", videos / "videos", "--out", out, "--batch-size", 3) == 1
    printed = capsys.readouterr()
    entries = {Path(entry["input"]).stem: entry for entry in entries_of(out)}
    assert list(entries) == ["broken", "empty", "long", "short"]
    for name in ("broken", "empty"):
        assert f"skipped: {videos / 'videos' / name}.mp4" in printed.err
        assert set(entries[name]) == {"input", "error"}
    for name in ("long", "short"):
        (line,) = (line for line in printed.out.splitlines() if f"{name}.mp4: " in line)
        assert f"{entries[name]['class']} {max(entries[name]['scores'].values()):.1%}" in line
        assert Path(entries[name]["video"]).is_file()
    assert "2 of 4 inputs predicted" in printed.out


def test_a_long_video_gets_a_timeline(  # type: ignore[no-untyped-def]
    call, capsys: pytest.CaptureFixture[str], path: Path, videos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    options = ["--slide", "--out", out, "--batch-size", 2]
    assert call("predict", path, tmp_path / "random.pth", videos / "videos", bad, *options) == 1
    long, short, broken = entries_of(out)
    starts = [0, 0.8, 1.6, 2.4, 2.9]  # windows of 16 frames at 10 per second, half a window apart; the last at the end
    assert [(w["start"], w["end"]) for w in long["windows"]] == [(s, pytest.approx(s + 1.6)) for s in starts]
    assert [(w["start"], w["end"]) for w in short["windows"]] == [(0, 1.6), (0.4, 2.0)]
    assert "bad.mp4" in broken["error"]
    assert all(sum(w["scores"].values()) == pytest.approx(1, abs=1e-5) for w in long["windows"])
    assert long["segments"][0]["start"] == 0
    assert long["segments"][-1]["end"] == 4.5
    assert Image.open(long["timeline"]).size == (1200, 480)
    assert video_info(long["video"]).frames == 45
    printed = capsys.readouterr().out
    assert "mean probability" in printed
    assert "timelines/, outputs/, videos/, predictions.json" in printed
    assert not (out / "overlays").exists()


def test_windows_predict_what_their_part_of_the_video_does_alone(  # type: ignore[no-untyped-def]
    call, path: Path, videos: Path, tmp_path: Path
) -> None:
    source, part = videos / "videos/long.mp4", tmp_path / "part.avi"
    with av.open(str(source)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(part), "w") as container:
        stream = container.add_stream("ffv1", rate=10, options={"slices": "4"})
        stream.width, stream.height, stream.pix_fmt = 72, 48, "bgr0"
        for pixels in frames[8:24]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    weights = tmp_path / "random.pth"
    assert call("predict", path, weights, source, "--slide", "--out", tmp_path / "whole") == 0
    assert call("predict", path, weights, part, "--out", tmp_path / "part") == 0
    window = entries_of(tmp_path / "whole")[0]["windows"][1]
    assert window["scores"] == pytest.approx(entries_of(tmp_path / "part")[0]["scores"], abs=2e-3)


def test_length_and_stride_of_windows_are_options(  # type: ignore[no-untyped-def]
    call, path: Path, videos: Path, tmp_path: Path
) -> None:
    options = ["--slide", "--slide-window", 2, "--slide-stride", 0.5, "--out", tmp_path / "out"]
    assert call("predict", path, tmp_path / "random.pth", videos / "videos/long.mp4", *options) == 0
    windows = entries_of(tmp_path / "out")[0]["windows"]
    assert [(w["start"], w["end"]) for w in windows] == [(s / 2, s / 2 + 2) for s in range(6)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--slide-stride", 1], "slide_window and slide_stride go with slide"),
        (["--slide", "--slide-window", 0], "slide_window must be a positive number"),
    ],
)
def test_options_that_make_no_sense_are_one_message(  # type: ignore[no-untyped-def]
    call, capsys: pytest.CaptureFixture[str], path: Path, videos: Path, tmp_path: Path, options: list[Any], message: str
) -> None:
    assert call("predict", path, tmp_path / "random.pth", videos / "videos", *options) == 2
    assert message in capsys.readouterr().err


def test_testing_does_not_slide(call, capsys: pytest.CaptureFixture[str], path: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert call("test", path, tmp_path / "random.pth", "--work-dir", tmp_path / "w", "--slide") == 2
    assert "sliding windows are for segmentation: VideoHead sees whole" in capsys.readouterr().err


def test_tta_sees_three_crops_of_what_the_centre_crop_cuts_off(  # type: ignore[no-untyped-def]
    call, path: Path, videos: Path, tmp_path: Path
) -> None:
    weights, clip = tmp_path / "random.pth", videos / "videos/long.mp4"
    found = {}
    for name, options in {"plain": [], "tta": ["--tta"]}.items():
        assert call("predict", path, weights, clip, "--out", tmp_path / name, *options) == 0
        found[name] = json.loads(Path(entries_of(tmp_path / name)[0]["output"]).read_text())
    assert [len(found[name]["views"]) for name in ("plain", "tta")] == [1, 3]
    assert found["tta"]["views"][1] == pytest.approx(found["plain"]["scores"], abs=1e-4), "the centre"
    assert len({round(views[0], 6) for views in found["tta"]["views"]}) == 3
    assert call("test", path, weights, "--work-dir", tmp_path / "w", "--tta", "--out", tmp_path / "masks") == 0
    assert "view_top1" in json.loads(next((tmp_path / "w").glob("*/*.json")).read_text())


def test_tta_keeps_the_views_of_a_config(call, path: Path, videos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    config = Config.fromfile(path)
    config.model.inference = {"type": "ClipViews", "frames": 4, "crop_size": 24, "crops": 2}
    config.test_dataloader.dataset.sampling.clips = 3
    config.dump(path)
    arguments = ["predict", path, tmp_path / "random.pth", videos / "videos/short.mp4", "--tta", "--out"]
    assert call(*arguments, tmp_path / "out") == 0
    (entry,) = entries_of(tmp_path / "out")
    assert len(json.loads(Path(entry["output"]).read_text())["views"]) == 6
    assert call(*arguments, tmp_path / "slid", "--slide") == 0, "a window is one clip"


def test_a_model_without_attention_has_a_picture_without(  # type: ignore[no-untyped-def]
    call, path: Path, videos: Path, tmp_path: Path
) -> None:
    config = Config.fromfile(path)
    config.model.backbone = {"type": "Framewise", "backbone": {"type": "mobilevit_xxs"}, "token": True}
    config.dump(path)
    torch.save({"state_dict": MODELS.build(config.model).state_dict()}, tmp_path / "random.pth")
    arguments = ["predict", path, tmp_path / "random.pth", videos / "videos/short.mp4", "--out", tmp_path / "out"]
    assert call(*arguments) == 0
    assert Image.open(entries_of(tmp_path / "out")[0]["overlay"]).size[1] == 160


@pytest.mark.slow
def test_a_long_video_needs_no_more_memory_than_a_short_one(path: Path, tmp_path: Path) -> None:
    """Decoded, the long one has 370 MB."""
    import subprocess

    peak = {}
    for name, frames in {"short": 60, "long": 600}.items():
        picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8).repeat(11, 0).repeat(16, 1)
        write_video(
            tmp_path / f"{name}.mp4",
            (np.roll(picture[:384, :540], n, axis=1) for n in range(frames)),
            25,
            {"preset": "ultrafast"},
        )
        script = (
            "import resource, runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__');"
            "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
        )
        arguments = [TOOLS / "predict.py", path, tmp_path / "random.pth", tmp_path / f"{name}.mp4", "--slide", "--out"]
        command = [sys.executable, "-c", script, *map(str, [*arguments, tmp_path / name])]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=TOOLS.parent)
        peak[name] = float(done.stdout.split("peak")[1])
    assert peak["long"] < peak["short"] + 100, peak


def test_frames_in_memory_are_predicted_as_their_file(path: Path, videos: Path, tmp_path: Path) -> None:
    predictor, file = densevit.load(tmp_path / "random.pth", path), videos / "videos/long.mp4"
    frames = read_clip(file, lambda info: range(info.frames)).permute(0, 2, 3, 1)
    expected = predictor(file)
    for clip in (frames, frames.numpy(), frames[[16, 20, 24, 28]]):  # all frames, or those that the sampling chooses
        found = predictor(clip)
        assert torch.equal(found.prediction.scores, expected.prediction.scores)
        assert found.to_dict() == {**expected.to_dict(), "input": "input_0"}
    assert np.array_equal(predictor(frames).plot(), expected.plot())
    video = video_info(predictor(frames).save(tmp_path / "out")["video"])
    assert (video.frames, video.fps) == (45, 25), "frames have no rate"
    with pytest.raises(DataError, match=r"a clip is a file or \(T, H, W, 3\) uint8 RGB, not .* put the channels last"):
        predictor(frames.permute(0, 3, 1, 2))


def test_frames_in_memory_are_seen_in_windows(path: Path, videos: Path, tmp_path: Path) -> None:
    predictor = densevit.load(tmp_path / "random.pth", path, slide=True, slide_window=0.64)
    frames = read_clip(videos / "videos/long.mp4", lambda info: range(info.frames)).permute(0, 2, 3, 1)
    result = predictor(frames)
    assert result.prediction.times[1].tolist() == [0.32, 0.96], "of 25 frames per second"
    assert result.plot().shape == (480, 1200, 3)
    assert "input_0" in result.describe()
