"""Demo data are deterministic, repaired when damaged, and not to be told by colour."""

from pathlib import Path

import numpy as np
import pytest

from densevit.data.demo import SEGMENTATION_CLASSES, make_segmentation
from densevit.data.readers import read_image, read_mask
from densevit.data.scenes import draw_scene
from densevit.errors import DataError


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.*") if p.is_file()}


def test_files_are_in_the_layout_of_ade20k(tmp_path: Path) -> None:
    make_segmentation(tmp_path, train=3, val=2)
    names = {f"{split}/scene_{i:05d}" for split, n in [("training", 3), ("validation", 2)] for i in range(n)}
    expected = {f"images/{name}.jpg" for name in names} | {f"annotations/{name}.png" for name in names}
    assert contents(tmp_path).keys() == expected | {"demo.json"}
    image = read_image(tmp_path / "images/training/scene_00000.jpg")
    mask = read_mask(tmp_path / "annotations/training/scene_00000.png")
    assert image.shape[1:] == mask.shape == (128, 160)


def test_every_class_occurs_and_zero_marks_the_edges() -> None:
    masks = [draw_scene(np.random.default_rng(i))[1] for i in range(12)]
    assert {i for mask in masks for i in np.unique(mask)} == set(range(len(SEGMENTATION_CLASSES) + 1))
    assert all(0 < (mask == 0).mean() < 0.1 for mask in masks)


def test_pictures_depend_on_seed_split_and_number_only(tmp_path: Path) -> None:
    make_segmentation(tmp_path / "a", train=2, val=2)
    make_segmentation(tmp_path / "b", train=3, val=2)
    make_segmentation(tmp_path / "c", train=2, val=2, seed=1)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert {k: b[k] for k in a} == a
    assert len({*a.values(), *c.values()}) == len(a) + len(c)


def test_complete_data_are_not_written_again(tmp_path: Path) -> None:
    make_segmentation(tmp_path, train=2, val=1)
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")}
    make_segmentation(tmp_path, train=2, val=1)
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


def test_another_seed_replaces_all_pictures(tmp_path: Path) -> None:
    make_segmentation(tmp_path / "a", train=2, val=1, seed=0)
    make_segmentation(tmp_path / "a", train=2, val=1, seed=5)
    make_segmentation(tmp_path / "b", train=2, val=1, seed=5)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_data_of_the_user_are_not_touched(tmp_path: Path) -> None:
    photo = tmp_path / "images/training/holiday.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"mine")
    with pytest.raises(DataError, match="not generated here"):
        make_segmentation(tmp_path, train=1, val=1)
    assert photo.read_bytes() == b"mine"


def test_colour_alone_does_not_tell_the_class() -> None:
    counts = np.zeros((4096, len(SEGMENTATION_CLASSES) + 1))
    scenes = [draw_scene(np.random.default_rng(i)) for i in range(60)]
    bins = [(image.astype(int) // 16) @ np.array([256, 16, 1]) for image, _ in scenes]
    for colours, (_, ids) in zip(bins[:50], scenes[:50], strict=True):
        np.add.at(counts, (colours.ravel(), ids.ravel()), 1)
    guess = counts[:, 1:].argmax(axis=1) + 1
    guesses = np.stack([guess[colours] for colours in bins[50:]])
    truth = np.stack([ids for _, ids in scenes[50:]])
    overlap = [
        ((guesses == i) & (truth == i)).sum() / ((guesses == i) | ((truth == i) & (truth > 0))).sum()
        for i in range(1, 9)
    ]
    assert np.mean(overlap) < 0.25
    assert np.mean(overlap[3:]) < 0.1
