"""Generated datasets in the layouts of real ones, so that every config can be tried without a download."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from densevit.data.readers import read_image, read_mask
from densevit.data.scenes import CLASSES, draw_scene
from densevit.errors import DataError

VERSION = 1  # of the pictures: those of another version are drawn anew
MARKER = "demo.json"
SEGMENTATION_CLASSES = CLASSES


def make_segmentation(root: str | Path, train: int = 320, val: int = 32, seed: int = 0) -> None:
    """Write landscapes in the layout of ADE20K: ``{images,annotations}/{training,validation}``.

    Masks hold 0 for unlabelled and ``i + 1`` for class ``i`` of `SEGMENTATION_CLASSES`. A picture depends on seed,
    split and number only. Intact files stay as they are; missing and damaged ones are written, surplus ones removed.

    Raises:
        DataError: ``root`` holds images or annotations that were not made here.
    """
    root = Path(root)
    _claim(root, {"version": VERSION, "seed": seed})
    for stream, (split, count) in enumerate([("training", train), ("validation", val)]):
        images, masks = root / "images" / split, root / "annotations" / split
        names = [f"scene_{number:05d}" for number in range(count)]
        for number, name in enumerate(names):
            image_path, mask_path = images / f"{name}.jpg", masks / f"{name}.png"
            if not _is_intact(image_path, mask_path):
                image, mask = draw_scene(np.random.default_rng((seed, stream, number)))
                _write_image(image_path, image[..., ::-1])
                _write_image(mask_path, mask)
        _remove(path for folder in (images, masks) for path in folder.glob("*") if path.stem not in names)


def _claim(root: Path, made: dict[str, int]) -> None:
    """Mark ``root`` as demo data made like this; remove what was made otherwise."""
    marker = root / MARKER
    files = [path for folder in ("images", "annotations") for path in (root / folder).glob("*/*")]
    if files and not marker.exists():
        raise DataError(f"{root} holds data that were not generated here; choose another --root")
    if not marker.exists() or json.loads(marker.read_text()) != made:
        _remove(files)
        _write(marker, json.dumps(made).encode())


def _is_intact(image: Path, mask: Path) -> bool:
    try:
        return read_image(image).shape[1:] == read_mask(mask).shape
    except DataError:
        return False


def _write_image(path: Path, pixels: np.ndarray) -> None:
    options = [cv2.IMWRITE_JPEG_QUALITY, 92] if path.suffix == ".jpg" else []
    _write(path, cv2.imencode(path.suffix, pixels, options)[1].tobytes())


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(data)
    os.replace(part, path)


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        path.unlink(missing_ok=True)
