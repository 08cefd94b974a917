"""However a file is damaged, it gives a sample or an error of ours that names it: no crash, no other error, no hang.

A failure leaves the damaged file in tmp_path; the numbers of its format, count and try make it again.
"""

import copy
import gzip
import io
import json
import logging
import pickle
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import safetensors.torch
import torch
from mmengine.logging import MMLogger
from PIL import Image

from densevit.data import cifar
from densevit.data.cifar import read_cifar
from densevit.data.quarantine import Quarantine
from densevit.data.readers import image_size, read_image, read_mask
from densevit.data.video import read_clip, video_info
from densevit.data.video_stream import stream_frames
from densevit.data.volume import read_labels, read_volume, volume_header
from densevit.engine.checkpoint import find_fault, save_checkpoint
from densevit.errors import DensevitError
from densevit.tasks.detection.coco_results import read_results
from densevit.tasks.detection.dataset import CocoDataset
from densevit.tasks.medical.case_list import of_fold, read_cases, read_classes, read_description
from densevit.tasks.video.clip_list import ClipList, read_class_names
from densevit.weights import read_file

COUNTS = [12, pytest.param(250, marks=pytest.mark.slow)]  # tries of each format
SECONDS, BYTES = 10, 4 << 30  # of one reading
ROWS = 4  # images of a file of CIFAR
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)
VOXELS = RNG.integers(0, 5, (6, 5, 4)).astype(np.int16)
STATE = {"head.weight": torch.ones(4, 3), "bias": torch.arange(5).bfloat16()}
BATCH = {
    b"data": RNG.integers(0, 256, (ROWS, 3072), dtype=np.uint8),
    b"labels": [0, 3, 9, 1],
    b"filenames": [b"a"] * ROWS,
}
JUNK: list[Any] = [None, True, 0, -1, 2**31, 2**70, 0.5, 1e300, float("nan"), float("inf"), "", "1", "\0", "\ud800"]
JUNK += ["x" * 5000, [], {}, [[]], [[0] * 6], [[1, 1, 1e9, 1, 9, 9]], {"size": [20, 30], "counts": [2**70]}, [600]]

Read = Callable[[Path], object]


def picture(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, kind, **options)
    return file.getvalue()


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112], tags[0x010E] = 6, "a comment"
    return tags


def coco() -> bytes:
    images = [{"id": i + 1, "file_name": f"{i}.jpg", "height": 20, "width": 30} for i in range(2)]
    segmentations: list[Any] = [[[1, 2, 11, 2, 11, 7]], {"size": [20, 30], "counts": [20, 5, 575]}]
    annotations = [
        {"id": i, "image_id": 1, "category_id": 3, "bbox": [1, 2, 10, 5], "area": 9, "iscrowd": 0, "segmentation": each}
        for i, each in enumerate(segmentations)
    ]
    content = {"images": images, "categories": [{"id": 3, "name": "a"}, {"id": 4, "name": "b"}]}
    return json.dumps({**content, "annotations": annotations}).encode()


def results() -> bytes:
    mask = {"size": [20, 30], "counts": [20, 5, 575]}
    entry = {"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5, "segmentation": mask}
    return json.dumps([entry, entry]).encode()


def description() -> bytes:
    cases = [{"image": f"{i}.nii.gz", "label": f"{i}.nii", "fold": i % 2} for i in range(4)]
    return json.dumps({"labels": {"0": "background", "1": "organ"}, "training": cases}).encode()


def weights(**options: Any) -> bytes:
    file = io.BytesIO()
    torch.save({"state_dict": STATE, "meta": {"iter": 1, "config": "x" * 50}}, file, **options)
    return file.getvalue()


def arrays() -> bytes:
    file = io.BytesIO()
    np.savez(file, **{"params/a": np.ones((3, 2), np.float32), "params/b": np.ones(3)})
    return file.getvalue()


def bad_samples() -> bytes:
    entry = {"path": "a.jpg", "error": "e", "sha256": None, "others": {}, "replaced_by": None, "training": True}
    return b"".join(json.dumps({**entry, "path": f"{i}.jpg"}).encode() + b"\n" for i in range(3))


def read_objects(path: Path) -> None:
    dataset = CocoDataset((), ann_file=str(path), masks=True)
    for index in range(len(dataset)):
        dataset.path(index), dataset.read_target(index)


def read_description_and_cases(path: Path) -> None:
    content = read_description(path)
    read_classes(content, path, None)
    of_fold(read_cases(content, "training", path), 1, 2, held_out=False)


def read_clips(path: Path) -> None:
    clips = ClipList(path, path.parent, ["walk", "run", "dance"])
    for index in range(len(clips)):
        clips.path(index), clips.label(index)


def read_frames(path: Path) -> object:
    return read_clip(path, lambda info: np.linspace(0, info.frames - 1, 3).astype(int), 32)


def record(path: Path) -> None:
    Quarantine(path, 1000, replace=True).record(["new.jpg"], ValueError("broken"))


IMAGE: list[Read] = [read_image, image_size, read_mask]
VOLUME: list[Read] = [read_volume, read_labels, volume_header]
CIFAR: list[Read] = [lambda path: read_cifar(path.parent, "test", 10)]
FORMATS: dict[str, tuple[Callable[[], bytes], list[Read]]] = {
    "plain.jpg": (lambda: picture("JPEG"), IMAGE),
    "progressive.jpg": (lambda: picture("JPEG", progressive=True, exif=exif()), IMAGE),
    "cmyk.jpg": (lambda: picture("JPEG", "CMYK"), IMAGE),
    "plain.png": (lambda: picture("PNG"), IMAGE),
    "gray.png": (lambda: picture("PNG", "L"), IMAGE),
    "palette.png": (lambda: picture("PNG", "P", transparency=3), IMAGE),
    "alpha.png": (lambda: picture("PNG", "RGBA", exif=exif()), IMAGE),
    "a.tif": (lambda: picture("TIFF"), IMAGE),
    "lzw.tif": (lambda: picture("TIFF", compression="tiff_lzw"), IMAGE),
    "a.webp": (lambda: picture("WEBP"), IMAGE),
    "a.bmp": (lambda: picture("BMP", "P"), IMAGE),
    "a.nii": (lambda: nibabel.Nifti1Image(VOXELS, np.eye(4)).to_bytes(), VOLUME),
    "two.nii": (lambda: nibabel.Nifti2Image(VOXELS.astype(np.float32), np.eye(4)).to_bytes(), VOLUME),
    "a.nii.gz": (lambda: gzip.compress(nibabel.Nifti1Image(VOXELS, np.eye(4)).to_bytes()), VOLUME),
    "test_batch": (lambda: pickle.dumps(BATCH, protocol=4), CIFAR),
    "test_batch.bin": (lambda: np.c_[np.arange(ROWS, dtype=np.uint8), BATCH[b"data"]].tobytes(), CIFAR),
    "instances.json": (coco, [read_objects]),
    "results.json": (results, [lambda path: read_results(path, [3, 4])]),
    "dataset.json": (description, [read_description_and_cases]),
    "train.txt": (lambda: b"a b/c.mp4 0\nd.mp4 1\n\nx/y.mp4 dance\n", [read_clips, read_class_names]),
    "train.csv": (lambda: b'name,label\n"a,b.mp4",0\nx/y.mp4,dance\n', [read_clips, read_class_names]),
    "bad_samples.jsonl": (bad_samples, [record]),
    "a.pth": (weights, [read_file]),
    "old.pth": (lambda: weights(_use_new_zipfile_serialization=False), [read_file]),
    "a.safetensors": (lambda: safetensors.torch.save(STATE, {"classes": "[]"}), [read_file]),
    "a.npz": (arrays, [read_file]),
}
VIDEOS: dict[str, dict[str, Any]] = {
    "h264.mp4": dict(count=8, options={"g": "4"}),
    "h264.mkv": dict(count=8, options={"g": "4"}, sound=0.2),
    "mpeg4.avi": dict(count=8, codec="mpeg4"),
}


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the content cut, with flipped bits, lost, doubled, blank or random stretches."""
    data, size = bytearray(content), len(content)
    start = int(rng.integers(size))
    end = min(size, start + int(rng.integers(1, 64)))
    kind = rng.integers(6)
    if kind == 0:
        del data[start:]
    elif kind == 1:
        del data[start:end]
    elif kind == 2:
        data[start:start] = data[start:end]
    elif kind == 3:
        data[start:end] = bytes(end - start)
    elif kind == 4:
        data[start:end] = rng.bytes(end - start)
    else:
        for place in rng.integers(0, min(size, int(rng.choice([400, size]))), 4):  # often in the header
            data[place] ^= 1 << int(rng.integers(8))
    return bytes(data)


def changed(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a JSON file with something else in one or two places."""
    value = copy.deepcopy(json.loads(content))
    for _ in range(int(rng.integers(1, 3))):
        parent, node, key = [value], value, 0
        while isinstance(node, dict | list) and node and (node is value or rng.random() < 0.8):
            parent = node
            key = list(node)[rng.integers(len(node))] if isinstance(node, dict) else int(rng.integers(len(node)))
            node = node[key]
        if isinstance(parent, dict) and rng.random() < 0.1:
            parent["²"] = parent.pop(key)
        else:
            parent[key] = JUNK[rng.integers(len(JUNK))]
    return json.dumps(value).encode()


@pytest.fixture
def _sober(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let files of CIFAR be small, and memory be bounded, so that what would fill it raises a MemoryError."""
    layouts = [layout._replace(rows=dict.fromkeys(layout.rows, ROWS)) for layout in cifar.LAYOUTS[10]]
    monkeypatch.setattr(cifar, "LAYOUTS", {10: tuple(layouts)})
    monkeypatch.setattr(logging.getLogger("nibabel.global"), "disabled", True)
    monkeypatch.setattr(MMLogger.get_current_instance(), "disabled", True)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    if (status := Path("/proc/self/statm")).exists():
        used = int(status.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, limits[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def check(path: Path, content: bytes, readers: list[Read], count: int) -> None:
    """Damage a file again and again, and read it."""
    rng = np.random.default_rng(count)
    structured = path.suffix == ".json"
    for number in range(count):
        path.write_bytes(changed(content, rng) if structured and number % 4 else damaged(content, rng))
        for read in readers:
            start, message = time.process_time(), path.name
            try:
                read(path)
            except DensevitError as error:
                message = str(error)
            assert path.name in message, f"try {number}: the file is not named"
            assert time.process_time() - start < SECONDS, f"try {number}"


@pytest.mark.usefixtures("_sober")
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_gives_a_sample_or_an_error_that_names_it(tmp_path: Path, name: str, count: int) -> None:
    make, readers = FORMATS[name]
    check(tmp_path / name, make(), readers, count)


def all_frames(path: Path) -> None:
    for _ in stream_frames(path, 32):
        pass


@pytest.mark.usefixtures("_sober")
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", VIDEOS)
def test_a_damaged_video_gives_a_clip_or_an_error_that_names_it(
    tmp_path: Path, write_numbered: Callable[..., Path], name: str, count: int
) -> None:
    path = write_numbered(tmp_path / name, **VIDEOS[name])
    check(path, path.read_bytes(), [read_frames, video_info, all_frames], count)


def test_no_damage_to_a_checkpoint_of_a_run_goes_unnoticed(tmp_path: Path) -> None:
    path, rng = tmp_path / "iter_1.pth", np.random.default_rng(0)
    save_checkpoint({"meta": {"iter": 1, "epoch": 0}, "state_dict": STATE}, path)
    content = path.read_bytes()
    for _ in range(300):
        path.write_bytes(harmed := damaged(content, rng))
        assert (find_fault(path) is None) == (harmed == content)
