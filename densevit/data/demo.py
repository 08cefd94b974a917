"""Generated datasets in the layouts of real ones, so that every config can be tried without a download."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from densevit.data.generated import claim, remove, write_whole
from densevit.data.portraits import CLASSES as PORTRAIT_CLASSES
from densevit.data.portraits import draw_portrait
from densevit.data.readers import read_image, read_mask
from densevit.data.scenes import CLASSES, OBJECT_CLASSES, Scene, draw_scene
from densevit.errors import DataError

VERSION = 1  # of the pictures: those of another version are drawn anew
SEGMENTATION_CLASSES, DETECTION_CLASSES, CLASSIFICATION_CLASSES = CLASSES, OBJECT_CLASSES, PORTRAIT_CLASSES
MIN_PIXELS = 16  # of an object that others hide: with fewer it is left out


def make_classification(root: str | Path, train: int = 2000, val: int = 200, seed: int = 0) -> None:
    """Write pictures of single objects in folders of their classes: ``{train,val}/<class>``.

    Picture ``i`` of a split is of class ``i`` modulo the number of `CLASSIFICATION_CLASSES`. Pictures depend on seed,
    split and number only. Intact files stay as they are; missing and damaged ones are written, surplus ones removed.

    Raises:
        DataError: ``root`` holds pictures that were not made here.
    """
    root = Path(root)
    claim(root, {"version": VERSION, "seed": seed}, ("train/*/*", "val/*/*"))
    for stream, (split, count) in enumerate([("train", train), ("val", val)]):
        labels = [number % len(CLASSIFICATION_CLASSES) for number in range(count)]
        paths = [
            root / split / CLASSIFICATION_CLASSES[label] / f"{number:05d}.jpg" for number, label in enumerate(labels)
        ]
        for number, (path, label) in enumerate(zip(paths, labels, strict=True)):
            if not _is_image(path):
                _write_image(path, draw_portrait(np.random.default_rng((seed, stream, number)), label)[..., ::-1])
        remove({*(root / split).glob("*/*")} - {*paths})


def make_segmentation(root: str | Path, train: int = 320, val: int = 32, seed: int = 0) -> None:
    """Write landscapes in the layout of ADE20K: ``{images,annotations}/{training,validation}``.

    Masks hold 0 for unlabelled and ``i + 1`` for class ``i`` of `SEGMENTATION_CLASSES`. A picture depends on seed,
    split and number only. Intact files stay as they are; missing and damaged ones are written, surplus ones removed.

    Raises:
        DataError: ``root`` holds images or annotations that were not made here.
    """
    root = Path(root)
    claim(root, {"version": VERSION, "seed": seed}, ("images/*/*", "annotations/*/*"))
    for stream, (split, count) in enumerate([("training", train), ("validation", val)]):
        images, masks = root / "images" / split, root / "annotations" / split
        names = [f"scene_{number:05d}" for number in range(count)]
        for number, name in enumerate(names):
            image_path, mask_path = images / f"{name}.jpg", masks / f"{name}.png"
            if not _is_intact(image_path, mask_path):
                scene = draw_scene(np.random.default_rng((seed, stream, number)))
                _write_image(image_path, scene.image[..., ::-1])
                _write_image(mask_path, scene.ids)
        remove(path for folder in (images, masks) for path in folder.glob("*") if path.stem not in names)


def make_detection(root: str | Path, train: int = 320, val: int = 32, seed: int = 0) -> None:
    """Write the landscapes of `make_segmentation` in the layout of COCO, with what stands in them as objects.

    Pictures are in ``{train,val}``, boxes and polygons of the classes `DETECTION_CLASSES` in
    ``annotations/instances_{train,val}.json``. Both cover what is seen of an object; what surrounds another one covers
    it too. Files are kept, written and removed as by `make_segmentation`.

    Raises:
        DataError: ``root`` holds images or annotations that were not made here.
    """
    root = Path(root)
    claim(root, {"version": VERSION, "seed": seed}, ("train/*", "val/*", "annotations/*"))
    for stream, (split, count) in enumerate([("train", train), ("val", val)]):
        paths = [root / split / f"scene_{number:05d}.jpg" for number in range(count)]
        annotations = root / "annotations" / f"instances_{split}.json"
        remove(path for path in (root / split).glob("*") if path not in paths)
        remove(annotations.parent.glob(f".{annotations.name}.*"))  # what an interrupted run left
        if all(map(_is_image, paths)) and _lists(annotations, paths):
            continue
        scenes = [draw_scene(np.random.default_rng((seed, stream, number))) for number in range(count)]
        for path, scene in zip(paths, scenes, strict=True):
            if not _is_image(path):
                _write_image(path, scene.image[..., ::-1])
        write_whole(annotations, json.dumps(_coco(paths, scenes)).encode())


def _coco(paths: Sequence[Path], scenes: Sequence[Scene]) -> dict[str, Any]:
    """Return pictures, classes and objects as a COCO file holds them; ids count from 1."""
    height, width = scenes[0].ids.shape if scenes else (0, 0)
    images = [
        {"id": i, "file_name": path.name, "height": height, "width": width} for i, path in enumerate(paths, start=1)
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(DETECTION_CLASSES, start=1)]
    found = [(image_id, each) for image_id, scene in enumerate(scenes, start=1) for each in _objects(scene)]
    annotations = [{"id": i, "image_id": image_id, **each} for i, (image_id, each) in enumerate(found, start=1)]
    return {"images": images, "categories": categories, "annotations": annotations}


def _objects(scene: Scene) -> Iterator[dict[str, Any]]:
    """Yield class, box, area and outlines of the objects of which enough is seen, from far to near."""
    for number in range(1, int(scene.objects.max()) + 1):
        mask = (scene.objects == number).astype(np.uint8)
        kind = int(scene.ids[mask > 0].max(initial=0)) - CLASSES.index(DETECTION_CLASSES[0])
        if mask.sum() < MIN_PIXELS or kind < 1:  # a line of pixels may be all edge
            continue
        outlines = _outlines(mask)
        yield {
            "category_id": kind,
            "iscrowd": 0,
            "bbox": list(cv2.boundingRect(mask)),
            "area": sum(cv2.contourArea(outline) for outline in outlines),
            "segmentation": [outline.ravel().tolist() for outline in outlines],
        }


def _outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Return the outer outlines of a mask, along the sides of its pixels, ``(n, 2)`` int32 x, y each."""
    doubled = cv2.resize(mask, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)  # an outline goes through centres
    contours, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [(contour[:, 0] + 1) // 2 for contour in contours]


def _lists(annotations: Path, paths: Sequence[Path]) -> bool:
    """Say whether a COCO file is whole and of these pictures."""
    try:
        images = json.loads(annotations.read_text())["images"]
    except (OSError, ValueError):
        return False
    return [image["file_name"] for image in images] == [path.name for path in paths]


def _is_intact(image: Path, mask: Path) -> bool:
    try:
        return read_image(image).shape[1:] == read_mask(mask).shape
    except DataError:
        return False


def _is_image(path: Path) -> bool:
    try:
        return bool(read_image(path).numel())
    except DataError:
        return False


def _write_image(path: Path, pixels: np.ndarray) -> None:
    options = [cv2.IMWRITE_JPEG_QUALITY, 92] if path.suffix == ".jpg" else []
    write_whole(path, cv2.imencode(path.suffix, pixels, options)[1].tobytes())
