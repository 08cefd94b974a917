"""What a page speaks of and a reader has: photos, clips, weights, runs, generated data. Made when a block names it."""

import gzip
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config

from densevit import create_model
from densevit.data.motion import draw_clip
from densevit.data.phantoms import draw_phantom
from densevit.data.scenes import draw_scene
from densevit.data.video_writing import write_video
from densevit.engine.checkpoint import save_checkpoint
from densevit.engine.plain_config import to_plain
from densevit.palette import distinct_colours
from densevit.registry import BACKBONES, MODELS
from tests.docs.layouts import MAKERS, made

_WEIGHTS = re.compile(r"(?<![\w./-])([\w.-]+)\.(?:pth|safetensors)\b")
_DEMO = re.compile(r"data/demo/(\w+)")
_WORDS = re.compile(r"(?<![\w./-])[\w.-]+")


def photo(path: Path) -> None:
    """Write a picture."""
    cv2.imwrite(str(path), draw_scene(np.random.default_rng(len(path.name))).image[..., ::-1])


def photos(path: Path) -> None:
    """Make a folder of pictures."""
    path.mkdir()
    photo(path / "a.jpg")
    photo(path / "b.jpg")
    photo(path / "c.png")


def clip(path: Path) -> None:
    """Write a video."""
    write_video(path, draw_clip(np.random.default_rng(0), 1), 10)


def clips(path: Path) -> None:
    """Make a folder of videos."""
    path.mkdir()
    clip(path / "a.mp4")
    clip(path / "b.mp4")


def scan(path: Path) -> None:
    """Write a volume."""
    draw_phantom(np.random.default_rng(0))[0].to_filename(path)


def scans(path: Path) -> None:
    """Make a folder of volumes."""
    path.mkdir()
    scan(path / "a.nii.gz")
    scan(path / "b.nii.gz")


def btcv(path: Path) -> None:
    """Write an archive as that of BTCV, with phantoms in it."""
    drawn = draw_phantom(np.random.default_rng(0))
    with zipfile.ZipFile(path, "w") as archive:
        for number in (*range(1, 11), *range(21, 41)):
            for volume, name in zip(drawn, (f"img/img{number:04}", f"label/label{number:04}"), strict=True):
                archive.writestr(f"RawData/Training/{name}.nii.gz", gzip.compress(volume.to_bytes()))


THINGS: dict[str, Callable[[Path], None]] = {
    "photo.jpg": photo,
    "photos": photos,
    "clip.mp4": clip,
    "hours.mp4": clip,
    "clips": clips,
    "scan.nii.gz": scan,
    "CT.nii.gz": scan,
    "scans": scans,
    "RawData.zip": btcv,
}
OTHER_NAMES = {"cmt_small": "cmt_s"}  # of the weights of a backbone


def make_things(text: str) -> None:
    """Make, in the working directory, what a text names and is not there."""
    for word in _WORDS.findall(text):
        if word.rstrip(".") in THINGS and not Path(word).exists():
            THINGS[word.rstrip(".")](Path(word))
    for task in MAKERS.keys() & set(_DEMO.findall(text)):
        made(task, Path("data/demo"))
    for name in set(_WEIGHTS.findall(text)):
        path = Path(f"{name}.pth")
        if path.exists():
            continue
        backbone = OTHER_NAMES.get(name, name)
        if name == "segformer.b0.ade":
            torch.save(create_model("mit_b0", "segmentation", 150).state_dict(), path)
        elif backbone in BACKBONES.names():
            torch.save(BACKBONES.build({"type": backbone}).state_dict(), path)


def make_run(folder: Path, cfg: Config) -> Path:
    """Write a checkpoint of random weights as a run of a config does; return its path."""
    torch.manual_seed(0)
    model = MODELS.build({key: value for key, value in cfg.model.items() if key != "weights"})
    named = cfg.test_dataloader.dataset.get("classes") or [f"class {i}" for i in range(model.head.num_classes)]
    classes = {"classes": list(named), "palette": distinct_colours(len(named))}
    meta = {"iter": 1, "epoch": 0, "config": to_plain(cfg), "dataset": classes}
    folder.mkdir(parents=True)
    path = folder / "iter_1.pth"
    save_checkpoint({"meta": meta, "state_dict": model.state_dict()}, path)
    return path
