"""Tiny generated data in the layout in which a config looks for them, where they are not there yet."""

import inspect
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
from mmengine.config import Config

from densevit.commands.make_demo_data import MAKERS
from densevit.registry import DATASETS

Options = Mapping[str, Any]
COUNTS = {"classification": (16, 8)}  # how many samples are made, to train and to validate on
USUAL = (6, 3)  # five folds are the most that they are shared out to


def made(task: str, folder: Path) -> Path:
    """Return the folder of the generated data of a task below another one, and make them if need be."""
    root = folder / task
    if not root.exists():
        MAKERS[task][0](root, *COUNTS.get(task, USUAL))
    return root


def provide(cfg: Config, source: Path, root: str | None = None) -> None:
    """Write what the datasets of a config read.

    Args:
        cfg: The config.
        source: Folder of generated data, which are copied from there.
        root: In place of each ``data_root``.
    """
    count = cfg.model.head.num_classes if "model" in cfg else 2
    for split in ("train", "val", "test"):
        loader = cfg.get(f"{split}_dataloader")
        if loader is None:
            continue
        kind: Any = DATASETS.get(loader.dataset.type)
        arguments = inspect.signature(kind.__init__).parameters.values()
        options = {p.name: p.default for p in arguments if p.default is not p.empty} | dict(loader.dataset)
        folder = Path(root or options.get("data_root", ""))
        if folder.parent.name == "demo" and folder.name in MAKERS:
            made(folder.name, folder.parent)
            continue
        for base in kind.__mro__:
            if base.__name__ in LAYOUTS:
                options["classes"] = options.get("classes") or [f"class {i}" for i in range(count)]
                LAYOUTS[base.__name__](options, folder, source)
                break


def _masks(options: Options, folder: Path, source: Path) -> None:
    """Images and masks of two folders; ids beyond the number of classes begin anew."""
    split = options.get("split")
    images, masks = (
        folder / options.get(key, f"{name}/{split}")
        for key, name in (("image_dir", "images"), ("mask_dir", "annotations"))
    )
    if images.exists():
        return
    for path in _own(made("segmentation", source) / "images", images.name):
        _copy(path, images / path.name)
        ids = cv2.imread(str(path).replace("images", "annotations").replace(".jpg", ".png"), cv2.IMREAD_UNCHANGED)
        masks.mkdir(parents=True, exist_ok=True)
        first = int(options.get("reduce_zero_label", True))
        cv2.imwrite(str(masks / f"{path.stem}.png"), ids % len(options["classes"]) + first)


def _class_folders(options: Options, folder: Path, source: Path) -> None:
    """Images in a folder of each class."""
    classes = options["classes"]
    if (folder / options["split"]).exists():
        return
    if len(classes) == 1000:
        classes = [f"n{i:08}" for i in range(1000)]
    pictures = _own(made("segmentation", source) / "images", options["split"])
    for number, name in enumerate(classes):
        for copy in range(2 if len(classes) < 100 else 1):
            _copy(pictures[(number + copy) % len(pictures)], folder / options["split"] / name / f"{copy}.jpg")


def _coco(options: Options, folder: Path, source: Path) -> None:
    """A folder of images and a file of objects."""
    split = options.get("split", "")
    annotations = folder / options.get("ann_file", f"annotations/instances_{split}2017.json")
    images = folder / options.get("image_dir", f"{split}2017")
    if annotations.exists():
        return
    part = "val" if any(word in annotations.name for word in ("val", "test")) else "train"
    root, classes = made("detection", source), options["classes"]
    content = json.loads((root / f"annotations/instances_{part}.json").read_text())
    content["categories"] = [{"id": i, "name": name} for i, name in enumerate(classes, start=1)]
    for each in content["annotations"]:
        each["category_id"] = 1 + each["category_id"] % len(classes)
    for image in content["images"]:
        name = f"{part}_{image['file_name']}"
        _copy(root / part / image["file_name"], images / name)
        image["file_name"] = name
    annotations.parent.mkdir(parents=True, exist_ok=True)
    annotations.write_text(json.dumps(content))


def _clips(options: Options, folder: Path, source: Path) -> None:
    """Videos and a list of them, or in a folder of each class."""
    classes, videos = options["classes"], sorted((made("video", source) / "videos").iterdir())
    if options.get("split"):
        if (folder / options["split"]).exists():
            return
        for number, name in enumerate(classes):
            for copy in range(2):
                _copy(videos[(number + copy) % len(videos)], folder / options["split"] / name / f"{copy}.mp4")
        return
    names, lines = folder / "labels.txt", folder / options["ann_file"]
    if lines.exists():
        return
    part = videos[6:] if "val" in lines.name or "test" in lines.name else videos[:6]
    for path in part:
        _copy(path, folder / options.get("video_dir", "videos") / path.name)
    lines.write_text("".join(f"{path.name} {i % len(classes)}\n" for i, path in enumerate(part)))
    if not names.exists():
        names.write_text("".join(f"{name}\n" for name in classes))


def _volumes(options: Options, folder: Path, source: Path) -> None:
    """Volumes and the list of them."""
    path = folder / options.get("ann_file", "dataset.json")
    lists = json.loads(path.read_text()) if path.exists() else {}
    section = options["section"]
    if section in lists:
        return
    drawn = made("volume", source)
    found = json.loads((drawn / "dataset.json").read_text())["training" if section == "training" else "validation"]
    whole = any(step["type"] == "Spacingd" for step in options["prepare"])
    for case in found:
        for name in case.values():
            _copy(drawn / name, folder / name)
            if not whole:
                _double(folder / name)
    labels = {str(i): name for i, name in enumerate(options["classes"])}
    path.write_text(json.dumps({"labels": labels, **lists, section: found}))


def _double(path: Path) -> None:
    """Halve the voxels of a volume, so that crops of voxels, of a config that keeps its grid, fit into it."""
    image: Any = nibabel.load(path)
    voxels = np.asanyarray(image.dataobj)
    for axis in range(3):
        voxels = voxels.repeat(2, axis)
    nibabel.Nifti1Image(voxels, image.affine @ np.diag([0.5, 0.5, 0.5, 1])).to_filename(path)


def _own(folder: Path, split: str) -> Sequence[Path]:
    """Return the generated pictures of a split, by whatever name it goes."""
    return sorted((folder / ("training" if "train" in split else "validation")).iterdir())


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


LAYOUTS = {
    "SegDataset": _masks,
    "ImageFolderDataset": _class_folders,
    "CocoDataset": _coco,
    "ClipDataset": _clips,
    "VolumeDataset": _volumes,
}
