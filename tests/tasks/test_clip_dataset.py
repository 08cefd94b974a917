"""Lists and folders of videos become clips with the right labels; what is wrong with them is said."""

import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.tv_tensors import Video

from densevit.data.batch import collate_batch
from densevit.data.quarantine import Quarantine
from densevit.data.video_writing import write_video
from densevit.errors import ConfigError, DataError
from densevit.registry import DATASETS
from densevit.tasks.video.clip_list import ClipList
from densevit.tasks.video.dataset import ClipDataset

SAMPLING = dict(type="SegmentSampling", frames=4)
REAL = Path(__file__).parents[2].parent / "shared/data/surveillance"


def write(path: Path, value: int, frames: int = 12) -> None:
    """Write a video whose frames get brighter from ``value`` on."""
    write_video(path, [np.full((32, 48, 3), value + n, np.uint8) for n in range(frames)], fps=25)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten videos that tell by their gray which they are, and the list of them."""
    for i in range(10):
        write(tmp_path / f"videos/v{i}.mp4", 20 * i)
    (tmp_path / "labels.txt").write_text("run\njump\nsit down\n")
    (tmp_path / "train.txt").write_text("".join(f"v{i}.mp4 {i % 3}\n" for i in range(10)))
    return tmp_path


def dataset(root: Path, **options: Any) -> ClipDataset:
    files = {} if "split" in options else {"ann_file": "train.txt"}
    return ClipDataset(**{"transforms": [], "sampling": SAMPLING, "data_root": str(root), **files, **options})


def names(data: ClipDataset) -> list[tuple[str, int]]:
    return [(Path(data.path(i)).name, data.label(i)) for i in range(len(data))]


def gray(clip: torch.Tensor) -> float:
    return clip.float().mean().item()


def test_a_list_gives_videos_and_labels_in_its_order(root: Path) -> None:
    data = dataset(root)
    assert data.classes == ("run", "jump", "sit down")
    assert names(data) == [(f"v{i}.mp4", i % 3) for i in range(10)]
    clip, target, path = data.read(7)
    assert isinstance(clip, Video)
    assert (clip.shape, clip.dtype) == ((4, 3, 32, 48), torch.uint8)
    assert [gray(frame) for frame in clip] == pytest.approx([141, 144, 147, 150], abs=2)
    assert torch.equal(target.label, torch.tensor(1))
    assert path == str(root / "videos/v7.mp4")


def test_a_sample_is_shrunk_and_transformed(root: Path) -> None:
    transforms = [dict(type="RandomResizedCrop", size=16), dict(type="RandomHorizontalFlip")]
    config = dict(type="ClipDataset", data_root=str(root), ann_file="train.txt", sampling=SAMPLING, short_side=24)
    sample = DATASETS.build(dict(config, transforms=transforms))[3]
    assert isinstance(sample.image, Video)
    assert (sample.image.shape, sample.image.is_contiguous()) == ((4, 3, 16, 16), True)
    assert (sample.meta.original_size, sample.meta.input_size) == ((4, 24, 36), (4, 16, 16))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.txt", "v0.mp4 0\n\n  v1.mp4\t1 \nv2.mp4 2"),
        ("l.txt", "v0.mp4 0\r\nv1.mp4 jump\r\nv2.mp4 2\r\n"),
        ("l.txt", "\ufeffv0.mp4 0\nv1.mp4 1\nv1.mp4 1\nv2.mp4 2\n".replace("v1.mp4 1\nv1.mp4 1", "v1.mp4 1")),
        ("l.csv", "path,label\nv0.mp4,run\nv1.mp4,1\nv2.mp4,sit down\n"),
        ("l.csv", 'v0.mp4,0\n"v1.mp4", 1\n"v2.mp4","2"\n'),
        ("l.csv", "v0.mp4 0\nv1.mp4 1\nv2.mp4 2\n"),
    ],
)
def test_lists_come_in_several_writings(root: Path, name: str, text: str) -> None:
    (root / name).write_bytes(text.encode())
    assert names(dataset(root, ann_file=name)) == [("v0.mp4", 0), ("v1.mp4", 1), ("v2.mp4", 2)]


def test_paths_may_have_spaces_commas_and_folders_or_be_absolute(root: Path, tmp_path_factory: Any) -> None:
    other = tmp_path_factory.mktemp("other") / "far off.mp4"
    write(other, 200)
    for name in ("a b/c  d.mp4", "a,b.mp4", "é.mp4"):
        write(root / "videos" / name, 100)
    (root / "l.txt").write_text(f"a b/c  d.mp4 0\na,b.mp4 1\né.mp4 1\n{other} 2\n", encoding="utf-8")
    (root / "l.csv").write_text(f'a b/c  d.mp4,0\n"a,b.mp4",1\né.mp4,1\n{other},2\n', encoding="utf-8")
    for name in ("l.txt", "l.csv"):
        data = dataset(root, ann_file=name)
        assert [round(gray(data[i].image), -2) for i in range(4)] == [100, 100, 100, 200]
        data.check("all")


def test_a_video_that_is_listed_twice_counts_twice_but_has_one_label(root: Path) -> None:
    (root / "l.txt").write_text("v0.mp4 0\nv1.mp4 1\nv0.mp4 0\n")
    assert len(dataset(root, ann_file="l.txt")) == 3
    (root / "l.txt").write_text("v0.mp4 0\nv1.mp4 1\nv0.mp4 2\n")
    with pytest.raises(DataError, match=r"l\.txt, line 3: v0\.mp4 is listed before with another label"):
        dataset(root, ann_file="l.txt")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("l.txt", "v0.mp4 0\nv1.mp4 3\n", r"line 2: label '3' is neither a number from 0 to 2 nor"),
        ("l.txt", "v0.mp4 -1\n", r"line 1: label '-1'"),
        ("l.txt", "v0.mp4 0\nv1.mp4 swim\n", r"line 2: label 'swim'.*mend the line, or give classes"),
        ("l.txt", "v0.mp4 0\n\nv1.mp4\n", r"line 3: 'v1\.mp4' is not `path label`"),
        ("l.txt", "path label\nv1.mp4 0\n", r"line 1: label 'label'"),
        ("l.csv", "path,label\nv1.mp4,9\n", r"line 2: label '9'"),
        ("l.csv", "v1.mp4,0\n,1\n", r"line 2: ',1' is not"),
        ("l.txt", "\n \n", r"lists no video"),
        ("l.csv", "path,label\n", r"lists no video"),
    ],
)
def test_a_malformed_list_is_refused_with_its_line(root: Path, name: str, text: str, reason: str) -> None:
    (root / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name}.*{reason}"):
        dataset(root, ann_file=name)


def test_missing_lists_names_and_folders_are_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"val\.txt: no list of videos .*check data_root and ann_file"):
        dataset(root, ann_file="val.txt")
    (root / "l.txt").write_bytes(b"\xff\xfe\x00v")
    with pytest.raises(DataError, match=r"l\.txt: no list of videos"):
        dataset(root, ann_file="l.txt")
    with pytest.raises(DataError, match=r"no folder .*nowhere.*Get it there"):
        dataset(root / "nowhere", download_help="Get it there")
    (root / "labels.txt").write_bytes(b"\xff\xfe\x00v")
    with pytest.raises(ConfigError, match=r"labels\.txt: .*List the names in classes"):
        dataset(root)
    (root / "labels.txt").unlink()
    with pytest.raises(ConfigError, match=r"labels\.txt: No such file.*List the names in classes, or write them there"):
        dataset(root)
    assert dataset(root, classes=("a", "b", "c")).classes == ("a", "b", "c")


def test_a_list_or_folders_but_not_both(root: Path) -> None:
    for options in ({"ann_file": "train.txt", "split": "train"}, {"ann_file": None}):
        with pytest.raises(ConfigError, match="either ann_file, a list of videos, or split"):
            ClipDataset([], SAMPLING, str(root), **options)


def test_folders_of_classes_need_no_list(root: Path) -> None:
    for name in ("sit/1.mp4", "run/b.MP4", "run/a.webm", "run/x/c.avi", "run/notes.txt", "run/picture.jpg"):
        path = root / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((root / "videos/v1.mp4").read_bytes())
    data = dataset(root, split="train")
    assert data.classes == ("run", "sit")
    assert names(data) == [("a.webm", 0), ("b.MP4", 0), ("c.avi", 0), ("1.mp4", 1)]
    data.check("all")
    with pytest.raises(DataError, match="1 classes have no folder: jump"):
        dataset(root, split="train", classes=("run", "sit", "jump"))


def test_a_seed_decides_frames_and_transforms(root: Path) -> None:
    options = dict(sampling=dict(SAMPLING, random=True), transforms=[dict(type="RandomResizedCrop", size=16)])
    first, second = dataset(root, **options), dataset(root, **options)
    first.seed = second.seed = 5
    assert all(torch.equal(first[i].image, second[i].image) for i in range(10))
    second.seed = 6
    assert not all(torch.equal(first[i].image, second[i].image) for i in range(10))


@pytest.mark.parametrize("mode", ["sample", "all"])
def test_good_data_pass_the_checks(root: Path, mode: str) -> None:
    dataset(root).check(mode)


def test_a_check_names_what_is_missing_and_in_full_what_cannot_be_decoded(root: Path) -> None:
    (root / "videos/v4.mp4").unlink()
    (root / "videos/v5.mp4").write_bytes(b"")
    whole = (root / "videos/v6.mp4").read_bytes()
    (root / "videos/v6.mp4").write_bytes(whole[: whole.index(b"mdat") + 60])
    for mode, count in (("sample", 2), ("all", 3)):
        with pytest.raises(DataError) as caught:
            dataset(root).check(mode)
        message = str(caught.value)
        assert message.startswith(f"{count} problems in {root / 'train.txt'}:")
        assert "v4.mp4: no such file" in message
        assert "v5.mp4: an empty file" in message
        assert ("v6.mp4: truncated" in message) == (mode == "all")


def test_a_check_prints_a_problem_of_many_files_once_and_counts_them(root: Path) -> None:
    (root / "l.txt").write_text("".join(f"gone{i}.mp4 0\n" for i in range(33)))
    with pytest.raises(DataError, match=r"33 problems(.|\n)*\(33 such files\)$") as caught:
        dataset(root, ann_file="l.txt").check("sample")
    assert str(caught.value).count("no such file") == 1


def loaded(data: ClipDataset, workers: int) -> list[float | None]:
    loader = DataLoader(data, 2, num_workers=workers, collate_fn=collate_batch)
    return [round(gray(sample.image)) for batch in loader for sample in batch]


def test_in_training_the_next_video_replaces_a_bad_one_whatever_the_workers(root: Path) -> None:
    (root / "videos/v2.mp4").write_bytes(b"")
    (root / "videos/v3.mp4").unlink()
    (root / "videos/v9.mp4").write_bytes((root / "videos/v9.mp4").read_bytes()[:300])
    results = []
    for workers in (0, 2):
        data = dataset(root, sampling=dict(SAMPLING, random=True))
        data.quarantine = Quarantine(root / f"{workers}/bad_samples.jsonl", 10, replace=True, limit_share=0.5)
        results.append(loaded(data, workers))
        lines = [json.loads(line) for line in (root / f"{workers}/bad_samples.jsonl").read_text().splitlines()]
        found = {Path(line["path"]).name: (line["error"], Path(line["replaced_by"]).name) for line in lines}
        assert {name: by for name, (_, by) in found.items()} == {
            "v2.mp4": "v4.mp4",
            "v3.mp4": "v4.mp4",
            "v9.mp4": "v0.mp4",
        }
        assert "v2.mp4: an empty file" in found["v2.mp4"][0]
        assert "v3.mp4: no such file" in found["v3.mp4"][0]
        assert "v9.mp4: " in found["v9.mp4"][0]
    assert results[0] == results[1]
    shades = [int(shade) // 20 for shade in results[0]]
    assert shades == [0, 1, 4, 4, 4, 5, 6, 7, 8, 0]


def test_evaluation_leaves_bad_videos_out_and_too_many_stop_the_run(root: Path) -> None:
    for i in (2, 3):
        (root / f"videos/v{i}.mp4").write_bytes(b"")
    data = dataset(root)
    data.quarantine = Quarantine(root / "bad_samples.jsonl", 10, replace=False, limit_share=0.2)
    assert [data[i] is None for i in range(10)] == [i in (2, 3) for i in range(10)]
    (root / "videos/v8.mp4").unlink()
    with pytest.raises(DataError, match=r"3 of 10 samples cannot be read, at most 2 may; the last one: .*v8\.mp4"):
        data[8]


def test_a_dataset_can_be_sent_to_a_worker(root: Path) -> None:
    data = pickle.loads(pickle.dumps(dataset(root, short_side=24)))
    assert data[4].image.shape == (4, 3, 24, 36)


def test_the_list_of_many_videos_is_small(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("".join(f"class_{i % 9}/{i:011d}_000010.mp4 {i % 9}\n" for i in range(4000)))
    tracemalloc.start()
    files = ClipList(tmp_path / "l.txt", tmp_path, [str(i) for i in range(9)])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert files.path(3999) == str(tmp_path / "class_3/00000003999_000010.mp4")
    assert held / 4000 < 60  # bytes a video, of a path of 30


@pytest.mark.skipif(not REAL.is_dir(), reason="the surveillance clips are not beside the repository")
@pytest.mark.slow
def test_the_surveillance_clips_are_read(root: Path) -> None:
    train, val = (dataset(REAL, ann_file=name, short_side=112) for name in ("train.txt", "val.txt"))
    assert (len(train), len(val), train.classes) == (210, 60, ("no_fight", "fight"))
    val.check("all")
    train.check("sample")
    assert train[0].image.shape == (4, 3, 112, 149)
