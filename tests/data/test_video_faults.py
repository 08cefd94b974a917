"""Videos that cannot be read are named with the way out; readers leave nothing behind, in whatever process."""

import multiprocessing
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from densevit.data import video
from densevit.data.batch import collate_batch
from densevit.data.video import read_clip, video_info
from densevit.errors import DataError
from densevit.structures import Meta, Sample

Numbered = Callable[[str], Path]
Write = Callable[..., Path]


@pytest.fixture(params=["decord", "pyav"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let decord read what suits it, or nothing."""
    if request.param == "decord" and video.decord is None:
        pytest.skip("decord is not installed")
    monkeypatch.setattr(video, "FIRST", request.param)
    return str(request.param)


def first(path: Path) -> torch.Tensor:
    return read_clip(path, lambda info: [0])


@pytest.mark.parametrize("read", [first, video_info])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"", "an empty file"),
        (b"<html>404 not found</html>" * 40, "damaged or no video"),
        (bytes(range(256)) * 99, "damaged or no video"),
    ],
)
def test_a_file_that_is_no_video_is_named(
    tmp_path: Path, read: Callable[[Path], object], content: bytes | None, reason: str
) -> None:
    path = tmp_path / "broken.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"broken\.mp4: {reason}"):
        read(path)


@pytest.mark.parametrize("read", [first, video_info])
def test_folders_pictures_and_sound_are_no_videos(
    tmp_path: Path, write_numbered: Write, read: Callable[[Path], object]
) -> None:
    (tmp_path / "folder.mp4").mkdir()
    for name, kind in (("jpg.mp4", "JPEG"), ("png.mp4", "PNG"), ("webp.mp4", "WEBP")):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / name, kind)
    write_numbered(tmp_path / "sound.m4a", count=0, sound=1).rename(tmp_path / "sound.mp4")
    reasons = {"folder": "a folder", "jpg": "a picture", "png": "a picture", "webp": "a picture", "sound": "only audio"}
    for name, reason in reasons.items():
        with pytest.raises(DataError, match=rf"{name}\.mp4: .*{reason}.*replace or remove"):
            read(tmp_path / f"{name}.mp4")


def test_the_content_decides_and_not_the_suffix_or_an_odd_name(numbered: Numbered, tmp_path: Path) -> None:
    expected = first(numbered("gop12.mp4"))
    for name in ("a.avi", "none", "a b,c.mp4", "é%03d.mp4", "-.mp4"):
        shutil.copy(numbered("gop12.mp4"), tmp_path / name)
        assert torch.equal(first(tmp_path / name), expected)


def test_notes_in_another_encoding_do_not_matter(numbered: Numbered, tmp_path: Path) -> None:
    with av.open(str(numbered("gop12.mp4"))) as source, av.open(str(tmp_path / "a.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        target.metadata["title"] = "caf\u00e9"
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.count("caf\u00e9".encode()) == 1
    (tmp_path / "a.mp4").write_bytes(data.replace("caf\u00e9".encode(), b"caf\xe9!"))
    assert torch.equal(first(tmp_path / "a.mp4"), first(numbered("gop12.mp4")))


def test_a_video_of_an_unknown_codec_is_refused_with_the_way_out(numbered: Numbered, tmp_path: Path) -> None:
    (tmp_path / "new.mp4").write_bytes(numbered("gop12.mp4").read_bytes().replace(b"avc1", b"zz99"))
    with pytest.raises(DataError, match=r"new\.mp4: PyAV cannot decode this kind of video; convert it to H\.264"):
        first(tmp_path / "new.mp4")


def test_a_name_like_an_address_is_a_file(
    numbered: Numbered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(numbered("gop12.mp4"), "concat:a.mp4")
    assert first(Path("concat:a.mp4")).shape == (1, 3, 64, 96)
    with pytest.raises(DataError, match="no such file"):
        read_clip("http://127.0.0.1:9/a.mp4", lambda info: [0])


@pytest.mark.parametrize("name", ["a.mkv", "fast.mp4", "a.mp4", "mpeg4.avi"])
def test_a_truncated_file_is_refused_with_what_is_there(
    tmp_path: Path, write_numbered: Write, decoder: str, name: str
) -> None:
    options = {"container": {"movflags": "+faststart"}} if name == "fast.mp4" else {}
    codec = {"codec": "mpeg4"} if name.endswith("avi") else {"options": {"g": "20"}}
    path = write_numbered(tmp_path / name, **codec, **options)
    whole = path.read_bytes()
    for share in (0.3, 0.6, 0.8):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DataError, match=rf"{re.escape(name)}: (truncated, .* of |damaged)"):
            read_clip(path, lambda info: [0])


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_sound_that_goes_on_after_the_video_is_no_truncation(
    tmp_path: Path, write_numbered: Write, decoder: str, suffix: str
) -> None:
    path = write_numbered(tmp_path / f"a.{suffix}", count=30, sound=6)
    assert read_clip(path, lambda info: [info.frames - 1, 29]).shape[0] == 2


@pytest.mark.parametrize("name", ["gop12.mp4", "same_times.mp4", "a.mkv", "mpeg4.avi", "vp9.webm", "av1.mp4"])
def test_damaged_bytes_give_an_error_or_frames_but_no_crash(
    numbered: Numbered, tmp_path: Path, decoder: str, name: str
) -> None:
    data = np.frombuffer(numbered(name).read_bytes(), np.uint8)
    path = tmp_path / name
    outcomes = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        damaged = data.copy()
        places = rng.integers(len(data) // 8, len(data) * 3 // 4, 40) if seed % 2 else rng.integers(0, len(data), 20)
        damaged[places] = rng.integers(0, 256, len(places))
        path.write_bytes(damaged.tobytes())
        try:
            outcomes.append(read_clip(path, lambda info: np.arange(0, info.frames, 4)).shape[1:])
        except DataError as error:
            outcomes.append(str(path) in str(error))
    assert set(outcomes) <= {True, (3, 64, 96)}


def test_no_frame_to_decode_is_an_error(numbered: Numbered, tmp_path: Path, decoder: str) -> None:
    data = bytearray(numbered("gop12.mp4").read_bytes())
    start = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    (tmp_path / "zeros.mp4").write_bytes(data)
    with pytest.raises(DataError, match=r"zeros\.mp4: (no frame|damaged)"):
        first(tmp_path / "zeros.mp4")


class Clips(torch.utils.data.Dataset):
    """Some clips of two files, one for each decoder."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Sample:
        clip = read_clip(self.paths[index % 2], lambda info: np.arange(4) * 3 + index)
        return Sample(clip, None, Meta(str(index), (64, 96), (64, 96)))


def test_workers_that_are_forked_read_the_same_clips_as_a_parent_that_has_read_some(numbered: Numbered) -> None:
    data = Clips([numbered("gop12.mp4"), numbered("same_times.mp4")])
    expected = [data[i].image for i in range(len(data))]  # by both decoders, before the fork
    loader = DataLoader(data, batch_size=3, num_workers=2, multiprocessing_context="fork", collate_fn=collate_batch)
    batches = list(loader)
    images = [sample.image for batch in batches for sample in batch]
    assert all(torch.equal(a, b) for a, b in zip(images, expected, strict=True))
    storages = {sample.image.untyped_storage().data_ptr() for sample in batches[0]}
    assert len(storages) == 1, "a batch travels as one tensor"


SCRIPT = """
import sys
from torch.utils.data import DataLoader
from densevit.data.batch import collate_batch
from densevit.tasks.video import ClipDataset

if __name__ == "__main__":
    sampling = dict(type="DenseSampling", frames=4, interval=3)
    data = ClipDataset([], sampling, sys.argv[1], ann_file="list.txt", classes=("a", "b"))
    expected = [data[i].image for i in range(len(data))]
    loader = DataLoader(data, 2, num_workers=1, multiprocessing_context=sys.argv[2], collate_fn=collate_batch)
    images = [sample.image for batch in loader for sample in batch]
    assert len(images) == 4 and all((a == b).all() for a, b in zip(images, expected))
    print("equal")
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", [m for m in multiprocessing.get_all_start_methods() if m != "fork"])
def test_workers_that_are_started_otherwise_get_the_dataset_and_read_the_same(
    numbered: Numbered, tmp_path: Path, method: str
) -> None:
    names = ["gop12.mp4", "same_times.mp4", "a.mkv", "mpeg4.avi"]
    (tmp_path / "videos").mkdir()
    for name in names:
        shutil.copy(numbered(name), tmp_path / "videos")
    (tmp_path / "list.txt").write_text("".join(f"{name} {i % 2}\n" for i, name in enumerate(names)))
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path), method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.stdout == "equal\n", done.stderr


GROWTH = """
import re, sys
import numpy as np
from densevit.data import video
video.FIRST = sys.argv[2]
rng = np.random.default_rng(0)
def memory():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
def read(times):
    for _ in range(times):
        video.read_clip(sys.argv[1], lambda info: rng.integers(0, info.frames, 4), short_side=96)
read(int(sys.argv[3]))
before = memory()
read(int(sys.argv[4]))
print(memory() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the memory of a process")
@pytest.mark.parametrize("which", ["decord", "pyav"])
def test_memory_stays_flat_over_hundreds_of_clips(tmp_path: Path, write_numbered: Write, which: str) -> None:
    if which == "decord" and video.decord is None:
        pytest.skip("decord is not installed")
    path = write_numbered(tmp_path / "hd.mp4", 12, options={"preset": "ultrafast", "g": "6"}, height=720, width=1280)
    command = [sys.executable, "-c", GROWTH, str(path), which, "60", "300"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=True)
    assert float(done.stdout) < 16  # MB; a frame has 2.6, and one kept by every read would be 780
