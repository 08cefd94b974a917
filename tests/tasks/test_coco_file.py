"""A COCO file becomes a small index; what cannot be used of it is told, never passed over."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.logging import MMLogger

from densevit.errors import DataError
from densevit.tasks.detection import coco_objects
from densevit.tasks.detection.coco_file import CocoFile, read_coco
from densevit.tasks.detection.masks import rasterise

SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]
RUNS = {"size": [20, 30], "counts": [100, 50, 450]}


def annotation(number: int, image: int = 7, **changes: Any) -> dict[str, Any]:
    plain = {"id": number, "image_id": image, "category_id": 5, "bbox": [2, 3, 4, 6], "area": 20.5, "iscrowd": 0}
    return {**plain, **changes}


def content(*annotations: Any, **changes: Any) -> dict[str, Any]:
    """Return a file with an image of 20 x 30 pixels, one of 40 x 10, and categories whose ids have gaps."""
    images = [
        {"id": 9, "file_name": "b.jpg", "height": 40, "width": 10},
        {"id": 7, "file_name": "ä/a.jpg", "height": 20, "width": 30},
    ]
    categories = [{"id": 90, "name": "tree"}, {"id": 5, "name": "house"}]
    return {"images": images, "categories": categories, "annotations": list(annotations), **changes}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "instances.json"


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what is logged."""
    found: list[str] = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, "warning", lambda text, *values: found.append(text % values))
    return found


def read(path: Path, *annotations: Any, masks: bool = False, **changes: Any) -> CocoFile:
    path.write_text(json.dumps(content(*annotations, **changes)))
    return read_coco(path, masks)


def test_objects_are_sorted_by_image_and_labels_follow_the_ids(path: Path, warnings: list[str]) -> None:
    file = read(
        path,
        annotation(1),
        annotation(2, 9, category_id=90, iscrowd=1, area=3, bbox=[0, 1, 2, 3]),
        annotation(3, bbox=[0, 0, 30, 20]),
    )
    assert (file.classes, file.category_ids) == (("house", "tree"), (5, 90))
    assert file.image_ids.tolist() == [9, 7]
    assert [file.names[i].decode() for i in range(2)] == ["b.jpg", "ä/a.jpg"]
    assert (file.heights.tolist(), file.widths.tolist()) == ([40, 20], [10, 30])
    assert [list(file.objects(i)) for i in range(2)] == [[0], [1, 2]]
    assert file.boxes.tolist() == [[0, 1, 2, 4], [2, 3, 6, 9], [0, 0, 30, 20]]
    assert file.boxes.dtype == file.area.dtype == np.float32
    assert (file.labels.tolist(), file.crowd.tolist(), file.area.tolist()) == (
        [1, 0, 0],
        [True, False, False],
        [3, 20.5, 20.5],
    )
    assert file.segmentations is None
    assert file.dropped == ()
    assert warnings == []


def test_crowd_and_area_may_be_missing(path: Path) -> None:
    file = read(path, {"id": 1, "image_id": 7, "category_id": 5, "bbox": [2, 3, 4, 6]})
    assert (file.crowd.tolist(), file.area.tolist()) == ([False], [24])


def test_segmentations_come_back_as_they_were_written(path: Path) -> None:
    polygons = [[0.1, 0.3, 17.47, 0.3, 17.47, 9.9], [1, 1, 5, 1, 5, 5]]
    file = read(
        path,
        annotation(1, segmentation=polygons),
        annotation(2, segmentation=RUNS),
        annotation(3, 9, segmentation=[SQUARE]),
        masks=True,
    )
    assert file.segmentations is not None
    assert len(file.segmentations) == 3
    assert file.segmentations[0] == [SQUARE]
    assert file.segmentations[1] == polygons
    coded = {"size": [20, 30], "counts": file.segmentations[2]}
    assert np.array_equal(rasterise(coded, 20, 30), rasterise(RUNS, 20, 30))


def test_a_file_can_be_sent_to_another_process(path: Path) -> None:
    file = read(path, annotation(1, segmentation=[SQUARE]), masks=True)
    sent = pickle.loads(pickle.dumps(file))
    assert sent.segmentations[0] == [SQUARE]
    assert np.array_equal(sent.boxes, file.boxes)
    assert sent.names[1] == file.names[1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (dict(id=1), "its id occurs before"),
        (dict(image_id=8), "its image is not in the file"),
        (dict(category_id=6), "its category is not in the file"),
        (dict(bbox=None), "not four finite numbers"),
        (dict(bbox=[1, 2, 3]), "not four finite numbers"),
        (dict(bbox=["1", "2", "3", "4"]), "not four finite numbers"),
        (dict(bbox=[1, 2, float("nan"), 4]), "not four finite numbers"),
        (dict(bbox=[1, 2, float("inf"), 4]), "not four finite numbers"),
        (dict(bbox=[10**400, 2, 3, 4]), "not four finite numbers"),
        (dict(bbox=[1, 2, -3, 4]), "width or height of 0 or less"),
        (dict(bbox=[1, 2, 0, 4]), "width or height of 0"),
        (dict(bbox=[1, 2, 3, 1e-9]), "width or height of 0"),
        (dict(bbox=[30, 2, 3, 4]), "outside of the image"),
        (dict(bbox=[1, -9, 3, 9]), "outside of the image"),
        (dict(iscrowd=2), "iscrowd is neither 0 nor 1"),
        (dict(area=-1), "its area is not"),
        (dict(area=None), "its area is not"),
        (dict(area=float("nan")), "its area is not"),
        (dict(segmentation=None), "it has no segmentation"),
        (dict(segmentation=[]), "it has no segmentation"),
        (dict(segmentation=SQUARE), "neither a list of polygons nor a dict of runs"),
        (dict(segmentation=[["a"] * 6]), "neither a list of polygons nor a dict of runs"),
        (dict(segmentation=[[1, 2, 3, 4]]), "fewer than 3 points"),
        (dict(segmentation=[[1, 2, 3, 4, 5, 9, 7]]), "odd number"),
        (dict(segmentation=[[1, 1, 2, 2, 3, 3]]), "its polygon has no area"),
        (dict(segmentation=[[1, 1, 1e9, 1, 1e9, 5]]), "its polygon has an outline of 2e+09 pixels"),
        (dict(segmentation=[[1, 1, float("nan"), 2, 3, 9]]), "not finite"),
        (dict(segmentation={"size": [30, 20], "counts": [600]}), "another size than the image"),
        (dict(segmentation={"counts": [600]}), "another size than the image"),
        (dict(segmentation={"size": [20, 30], "counts": [100, 50]}), "runs are damaged"),
        (dict(segmentation={"size": [20, 30], "counts": [100, 5000]}), "runs are damaged"),
        (dict(segmentation={"size": [20, 30], "counts": "zzzz"}), "runs are damaged"),
        (dict(segmentation={"size": [20, 30], "counts": [2**70]}), "runs are damaged"),
        (dict(segmentation={"size": [20, 30], "counts": None}), "runs are damaged"),
    ],
)
def test_an_unusable_annotation_is_dropped_and_told(
    path: Path, warnings: list[str], changes: dict[str, Any], reason: str
) -> None:
    bad = annotation(2, **{"segmentation": [SQUARE], **changes})
    file = read(path, annotation(1, segmentation=[SQUARE]), bad, masks=True)
    ((number, image, told),) = file.dropped
    assert (number, image) == (bad["id"], bad["image_id"])
    assert reason in told
    (text,) = warnings
    assert f"{path}: 1 of 2 annotations cannot be used" in text
    assert f"1 because {told}" in text
    assert f"annotation {number} of image {image}: {told}" in text
    assert len(file.labels) == 1


def test_broken_segmentations_do_not_matter_where_only_boxes_are_wanted(path: Path, warnings: list[str]) -> None:
    file = read(path, annotation(1, segmentation=[[1, 2]]), annotation(2, segmentation="?"), annotation(3))
    assert len(file.labels) == 3
    assert warnings == []


def test_many_dropped_annotations_are_counted_and_twenty_are_listed(path: Path, warnings: list[str]) -> None:
    file = read(
        path, annotation(0), *(annotation(i, bbox=[0, 0, 0, 0] if i % 2 else [90, 90, 1, 1]) for i in range(1, 31))
    )
    assert len(file.dropped) == 30
    assert "30 of 31 annotations" in warnings[0]
    assert warnings[0].count("15 because") == 2
    assert warnings[0].count("of image 7: ") == 20
    assert "and 10 more" in warnings[0]


def test_only_the_main_process_warns(path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_objects, "is_main_process", lambda: False)
    assert len(read(path, annotation(1), annotation(1)).dropped) == 1
    assert warnings == []


def test_boxes_are_clipped_and_more_than_a_pixel_is_told(path: Path, warnings: list[str]) -> None:
    file = read(path, annotation(1, bbox=[-0.5, 0, 10, 20.5]))
    assert file.boxes.tolist() == [[0, 0, 9.5, 20]]
    assert warnings == []
    assert read(path, annotation(1, bbox=[-5, -5, 99, 99])).boxes.tolist() == [[0, 0, 30, 20]]
    assert "1 boxes reach over the edge of their image and are clipped" in warnings[0]


def test_corners_and_shares_in_place_of_x_y_width_height_are_asked_about(path: Path, warnings: list[str]) -> None:
    read(path, *(annotation(i, bbox=[10, 5, 20 + i, 15]) for i in range(1, 4)))
    assert "are they x1, y1, x2, y2?" in warnings[0]
    read(path, annotation(1, bbox=[0.1, 0.2, 0.5, 0.5]))
    assert "are they shares of the image?" in warnings[1]


def test_each_of_two_files_is_told(path: Path, tmp_path: Path) -> None:
    logger = MMLogger.get_instance("two", log_file=str(tmp_path / "log"))
    for _ in range(2):
        read(path, annotation(1), annotation(2, bbox=[0, 0, 0, 5]))
        path = path.rename(path.with_name("other.json"))
    for handler in logger.handlers:
        handler.flush()
    assert (tmp_path / "log").read_text().count("1 of 2 annotations cannot be used") == 2


def test_degenerate_polygons_of_an_object_with_others_are_left_out_and_counted(path: Path, warnings: list[str]) -> None:
    file = read(path, annotation(1, segmentation=[[1, 2], SQUARE, [1, 1, 2, 2, 3, 3]]), masks=True)
    assert file.segmentations is not None
    assert file.segmentations[0] == [SQUARE]
    assert "2 degenerate polygons are left out" in warnings[0]


def test_a_file_of_boxes_only_says_so_when_masks_are_wanted(path: Path) -> None:
    with pytest.raises(DataError, match=r"no annotation has a segmentation.*masks=False"):
        read(path, annotation(1), annotation(2, segmentation=[]), masks=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON"),
        ('{"images": [', "no JSON"),
        ("\xff\xfe", "no JSON"),
        ("[]", "holds list"),
        ('{"images": [], "categories": []}', "no 'annotations', only images, categories"),
    ],
)
def test_other_files_are_refused(path: Path, text: str, message: str) -> None:
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message) as caught:
        read_coco(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(DataError, match=r"instances\.json: no such file"):
        read_coco(path)


IMAGE = {"id": 1, "file_name": "a.jpg", "height": 4, "width": 5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(images={}), r"'images' must be a list of dicts, not dict"),
        (dict(annotations=[3]), r"'annotations' must be a list of dicts"),
        (dict(images=[]), r"'images' is an empty list"),
        (dict(categories=[]), r"'categories' is an empty list"),
        (dict(images=[{**IMAGE, "id": "1"}]), r"images\[0\]: 'id' must be an integer, not str '1'"),
        (dict(images=[{**IMAGE, "id": 2**70}]), r"images\[0\]: 'id' must be an integer"),
        (dict(images=[{**IMAGE, "width": 0}]), r"images\[0\] \(id 1\): 'width' must be positive, not 0"),
        (dict(images=[{**IMAGE, "height": 4.5}]), r"images\[0\] \(id 1\): 'height' must be an integer"),
        (dict(images=[{**IMAGE, "file_name": None}]), r"images\[0\] \(id 1\): 'file_name' must be a text"),
        (dict(images=[{**IMAGE, "file_name": "\ud800"}]), r"images\[0\] \(id 1\): no file is called '\\ud800'"),
        (
            dict(images=[{**IMAGE, "height": 2**20, "width": 999}]),
            r"\(id 1\) is 1048576 x 999, more than the 17895",
        ),
        (dict(images=[IMAGE, IMAGE]), r"images\[1\] has the id 1 of images\[0\]"),
        (dict(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]), r"categories\[1\] \(id 1, name 'b'\)"),
        (dict(categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]), r"categories\[1\] \(id 2, name 'a'\)"),
        (dict(categories=[{"id": 1}]), r"categories\[0\] \(id 1\): 'name' must be a text, but is missing"),
        (dict(annotations=[annotation(3, image_id="7")]), r"annotations\[0\] \(id 3\): 'image_id' must be an integer"),
        (dict(annotations=[{"image_id": 7}]), r"annotations\[0\]: 'id' must be an integer, but is missing"),
        (dict(annotations=[annotation(3, category_id=True)]), r"'category_id' must be an integer, not bool True"),
        (dict(annotations=[]), r"no annotation is left of 0"),
        (dict(annotations=[annotation(1, 8)]), r"no annotation is left of 1"),
    ],
)
def test_a_wrong_entry_is_named_with_its_key_and_id(path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(path, annotation(1), **changes)
    assert str(path) in str(caught.value)
