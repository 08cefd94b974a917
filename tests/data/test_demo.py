"""Demo data are deterministic, repaired when damaged, and not to be told by colour."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densevit.data.demo import (
    CLASSIFICATION_CLASSES,
    DETECTION_CLASSES,
    MIN_PIXELS,
    SEGMENTATION_CLASSES,
    make_classification,
    make_detection,
    make_segmentation,
)
from densevit.data.portraits import DRAW, EXTENT, draw_portrait
from densevit.data.readers import read_image, read_mask
from densevit.data.scenes import draw_scene
from densevit.errors import DataError
from densevit.tasks.detection.masks import rasterise


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.*") if p.is_file()}


def annotations(root: Path, split: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / f"annotations/instances_{split}.json").read_text())
    return found


@pytest.fixture(params=[make_classification, make_segmentation, make_detection])
def make(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return what makes the data of each task."""
    return request.param  # type: ignore[no-any-return]


def test_files_are_in_the_layout_of_ade20k(tmp_path: Path) -> None:
    make_segmentation(tmp_path, train=3, val=2)
    names = {f"{split}/scene_{i:05d}" for split, n in [("training", 3), ("validation", 2)] for i in range(n)}
    expected = {f"images/{name}.jpg" for name in names} | {f"annotations/{name}.png" for name in names}
    assert contents(tmp_path).keys() == expected | {"demo.json"}
    image = read_image(tmp_path / "images/training/scene_00000.jpg")
    mask = read_mask(tmp_path / "annotations/training/scene_00000.png")
    assert image.shape[1:] == mask.shape == (128, 160)


def test_every_class_occurs_and_zero_marks_the_edges() -> None:
    masks = [draw_scene(np.random.default_rng(i)).ids for i in range(12)]
    assert {i for mask in masks for i in np.unique(mask)} == set(range(len(SEGMENTATION_CLASSES) + 1))
    assert all(0 < (mask == 0).mean() < 0.1 for mask in masks)


def test_pictures_depend_on_seed_split_and_number_only(tmp_path: Path) -> None:
    make_segmentation(tmp_path / "a", train=2, val=2)
    make_segmentation(tmp_path / "b", train=3, val=2)
    make_segmentation(tmp_path / "c", train=2, val=2, seed=1)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert {k: b[k] for k in a} == a
    assert len({*a.values(), *c.values()}) == len(a) + len(c)


def test_complete_data_are_not_written_again(make: Callable[..., None], tmp_path: Path) -> None:
    make(tmp_path, train=2, val=1)
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")}
    make(tmp_path, train=2, val=1)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")} == times


def test_damaged_missing_and_surplus_files_are_put_right(tmp_path: Path) -> None:
    make_segmentation(tmp_path, train=4, val=1)
    before = contents(tmp_path)
    cut = tmp_path / "images/training/scene_00001.jpg"
    cut.write_bytes(cut.read_bytes()[:500])
    (tmp_path / "annotations/training/scene_00002.png").unlink()
    (tmp_path / "images/training/.scene_00002.jpg.77").touch()
    make_segmentation(tmp_path, train=4, val=1)
    assert contents(tmp_path) == before
    make_segmentation(tmp_path, train=1, val=1)
    assert len(list((tmp_path / "images/training").iterdir())) == 1


def test_another_seed_replaces_all_pictures(make: Callable[..., None], tmp_path: Path) -> None:
    make(tmp_path / "a", train=2, val=1, seed=0)
    make(tmp_path / "a", train=2, val=1, seed=5)
    make(tmp_path / "b", train=2, val=1, seed=5)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (make_classification, "val/beach/holiday.jpg"),
        (make_segmentation, "images/training/holiday.jpg"),
        (make_detection, "train/holiday.jpg"),
    ],
    ids=["classification", "segmentation", "detection"],
)
def test_data_of_the_user_are_not_touched(make: Callable[..., None], name: str, tmp_path: Path) -> None:
    photo = tmp_path / name
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"mine")
    with pytest.raises(DataError, match="not generated here"):
        make(tmp_path, train=1, val=1)
    assert photo.read_bytes() == b"mine"


def test_colour_alone_does_not_tell_the_class() -> None:
    counts = np.zeros((4096, len(SEGMENTATION_CLASSES) + 1))
    scenes = [draw_scene(np.random.default_rng(i)) for i in range(60)]
    bins = [(scene.image.astype(int) // 16) @ np.array([256, 16, 1]) for scene in scenes]
    for colours, scene in zip(bins[:50], scenes[:50], strict=True):
        np.add.at(counts, (colours.ravel(), scene.ids.ravel()), 1)
    guess = counts[:, 1:].argmax(axis=1) + 1
    guesses = np.stack([guess[colours] for colours in bins[50:]])
    truth = np.stack([scene.ids for scene in scenes[50:]])
    overlap = [
        ((guesses == i) & (truth == i)).sum() / ((guesses == i) | ((truth == i) & (truth > 0))).sum()
        for i in range(1, 9)
    ]
    assert np.mean(overlap) < 0.25
    assert np.mean(overlap[3:]) < 0.1


def test_single_objects_are_in_folders_of_their_classes(tmp_path: Path) -> None:
    make_classification(tmp_path, train=11, val=5)
    expected = {f"train/{CLASSIFICATION_CLASSES[i % 5]}/{i:05d}.jpg" for i in range(11)}
    expected |= {f"val/{name}/{i:05d}.jpg" for i, name in enumerate(CLASSIFICATION_CLASSES)}
    assert contents(tmp_path).keys() == expected | {"demo.json"}
    assert read_image(tmp_path / "train/house/00000.jpg").shape == (3, 64, 64)
    assert len(DRAW) == len(EXTENT) == len(CLASSIFICATION_CLASSES)


def test_damaged_and_surplus_pictures_of_single_objects_are_put_right(tmp_path: Path) -> None:
    make_classification(tmp_path, train=5, val=0)
    before = contents(tmp_path)
    (tmp_path / "train/car/00003.jpg").write_bytes(b"")
    (tmp_path / "train/car/.00003.jpg.77").touch()
    make_classification(tmp_path, train=5, val=0)
    assert contents(tmp_path) == before
    make_classification(tmp_path, train=2, val=0)
    assert len(contents(tmp_path)) == 3


def test_mean_colours_do_not_tell_single_objects_apart() -> None:
    labels = np.arange(300) % 5
    pictures = np.stack([draw_portrait(np.random.default_rng(i), label) for i, label in enumerate(labels)])
    features = pictures.reshape(300, -1, 3).mean(1)
    distances = np.linalg.norm(features[200:, None] - features[:200], axis=-1)
    assert (labels[distances.argmin(1)] == labels[200:]).mean() < 0.4


def test_objects_are_in_the_layout_of_coco_on_the_same_pictures(tmp_path: Path) -> None:
    make_detection(tmp_path / "objects", train=3, val=2)
    make_segmentation(tmp_path / "classes", train=3, val=2)
    objects, classes = contents(tmp_path / "objects"), contents(tmp_path / "classes")
    pictures = {f"{split}/scene_{i:05d}.jpg" for split, n in [("train", 3), ("val", 2)] for i in range(n)}
    files = {"demo.json", "annotations/instances_train.json", "annotations/instances_val.json"}
    assert objects.keys() == pictures | files
    assert objects["train/scene_00002.jpg"] == classes["images/training/scene_00002.jpg"]
    assert objects["val/scene_00001.jpg"] == classes["images/validation/scene_00001.jpg"]
    coco = annotations(tmp_path / "objects", "train")
    assert [image["file_name"] for image in coco["images"]] == [f"scene_{i:05d}.jpg" for i in range(3)]
    assert all((image["height"], image["width"]) == (128, 160) for image in coco["images"])
    assert tuple(c["name"] for c in coco["categories"]) == DETECTION_CLASSES


def test_boxes_areas_and_polygons_are_those_of_what_is_seen(tmp_path: Path) -> None:
    make_detection(tmp_path, train=20, val=0)
    coco, kinds = annotations(tmp_path, "train"), set()
    for number, image in enumerate(coco["images"]):
        scene = draw_scene(np.random.default_rng((0, 0, number)))
        found = [each for each in coco["annotations"] if each["image_id"] == image["id"]]
        seen = [i for i in range(1, scene.objects.max() + 1) if (scene.objects == i).sum() >= MIN_PIXELS]
        assert len(found) == len(seen)
        for each, i in zip(found, seen, strict=True):
            mask, visible = rasterise(each["segmentation"], 128, 160), scene.objects == i
            rows, columns = np.nonzero(mask)
            x, y, width, height = each["bbox"]
            assert (x, y, x + width, y + height) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert each["area"] == mask.sum()
            assert mask[visible].all()
            assert (mask > visible).sum() <= 2, "only what an object surrounds may be added"
            name = coco["categories"][each["category_id"] - 1]["name"]
            assert set(np.unique(scene.ids[visible])) <= {0, SEGMENTATION_CLASSES.index(name) + 1}
            kinds.add(name)
    assert kinds == set(DETECTION_CLASSES)


def test_damaged_and_surplus_files_of_detection_are_put_right(tmp_path: Path) -> None:
    make_detection(tmp_path, train=4, val=1)
    before = contents(tmp_path)
    for name in ("train/scene_00001.jpg", "annotations/instances_train.json"):
        (tmp_path / name).write_bytes(before[name][:500])
        make_detection(tmp_path, train=4, val=1)
        assert contents(tmp_path) == before
    (tmp_path / "train/scene_00002.jpg").unlink()
    (tmp_path / "annotations/.instances_val.json.77").touch()
    make_detection(tmp_path, train=4, val=1)
    assert contents(tmp_path) == before
    make_detection(tmp_path, train=1, val=1)
    assert len(list((tmp_path / "train").iterdir())) == len(annotations(tmp_path, "train")["images"]) == 1
