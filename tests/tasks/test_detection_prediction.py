"""Pictures and files of predicted objects."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.tv_tensors import BoundingBoxes, Mask

from densevit.errors import DataError
from densevit.structures import BoxTarget
from densevit.tasks.detection.masks import encode_all
from densevit.tasks.detection.prediction import DetPrediction

CLASSES = ["cat", "dog", "a class with a rather long name"]
PALETTE = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
IMAGE = np.full((200, 300, 3), 100, np.uint8)


def objects(count: int, with_masks: bool = True) -> DetPrediction:
    """Rectangles in an image of 200 x 300 pixels, the masks their lower halves."""
    rng = np.random.default_rng(count)
    start = rng.random((count, 2), dtype=np.float32) * (200, 130)
    boxes = np.concatenate([start, start + 20 + rng.random((count, 2)) * 50], axis=1).astype(np.float32)
    masks = np.zeros((count, 200, 300), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[(y1 + y2) // 2 : y2, x1:x2] = 1
    scores = np.sort(rng.random(count, dtype=np.float32))[::-1].copy()
    labels = torch.from_numpy(rng.integers(0, 3, count))
    runs = encode_all(masks) if with_masks else None
    return DetPrediction(torch.from_numpy(boxes), torch.from_numpy(scores), labels, (200, 300), runs)


def one(label: int = 1, score: float = 0.9, box: tuple[float, ...] = (100, 60, 200, 140)) -> DetPrediction:
    return DetPrediction(torch.tensor([box]), torch.tensor([score]), torch.tensor([label]), (200, 300))


def truth(masks: Mask | None = None, crowd: bool = False) -> BoxTarget:
    return BoxTarget(
        boxes=torch.tensor([[100.0, 60, 200, 140]]),
        labels=torch.tensor([1]),
        crowd=torch.tensor([crowd]),
        area=torch.tensor([8000.0]),
        masks=masks,
        image_id=torch.tensor(7),
    )


def coloured(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Return which pixels have exactly a colour."""
    return (picture == colour).all(-1)


@pytest.mark.parametrize("with_masks", [True, False])
@pytest.mark.parametrize("count", [0, 1, 30])
def test_a_prediction_is_read_back_as_it_was_written(tmp_path: Path, count: int, with_masks: bool) -> None:
    written = objects(count, with_masks)
    path = written.save(tmp_path / "folder" / "a.b")
    assert path.name == "a.b.json"
    read = DetPrediction.load(tmp_path / "folder" / "a.b")
    for name in ("boxes", "scores", "labels"):
        assert torch.equal(getattr(read, name), getattr(written, name))
        assert getattr(read, name).dtype == getattr(written, name).dtype
    assert (read.size, read.masks) == (written.size, written.masks)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("scores"),
        lambda c: c["scores"].pop(),
        lambda c: c["masks"].pop(),
        lambda c: c["masks"][0].update(counts="damaged"),
        lambda c: c.update(size=[20, 30]),
        lambda c: c["boxes"][0].pop(),
        lambda c: c["boxes"][0].__setitem__(0, float("nan")),
        lambda c: c["labels"].__setitem__(0, -1),
        lambda c: c["labels"].__setitem__(0, "cat"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    path = objects(3).save(tmp_path / "a")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"a\.json: no predicted boxes"):
        DetPrediction.load(tmp_path / "a")


def test_a_missing_or_cut_file_is_named(tmp_path: Path) -> None:
    path = objects(3).save(tmp_path / "a")
    path.write_text(path.read_text()[:50])
    for name in ("a", "b"):
        with pytest.raises(DataError, match=rf"{name}\.json: no predicted boxes"):
            DetPrediction.load(tmp_path / name)


def test_the_summary_tells_class_score_and_box_of_each_object() -> None:
    assert one(score=0.75).summary(CLASSES) == {
        "objects": [{"class": "dog", "score": 0.75, "box": [100.0, 60.0, 200.0, 140.0]}]
    }


def test_a_box_is_drawn_in_the_colour_of_its_class_with_its_name() -> None:
    picture = one().draw(IMAGE, CLASSES, PALETTE)
    green = coloured(picture, PALETTE[1])
    assert picture.shape == IMAGE.shape
    assert green[[60, 139], 100:200].all()
    assert green[60:140, [100, 199]].all()
    assert not green[70:130, 110:190].any()
    assert green[:60].sum() > 100  # behind the name, above the box
    assert (IMAGE == 100).all()


def test_only_good_scores_are_drawn() -> None:
    assert np.array_equal(one(score=0.29).draw(IMAGE, CLASSES, PALETTE), IMAGE)
    assert not np.array_equal(one(score=0.29).draw(IMAGE, CLASSES, PALETTE, min_score=0.2), IMAGE)


@pytest.mark.parametrize("box", [(0, 0, 300, 200), (0, 0, 90, 60), (230, 150, 300, 200), (-50, -50, 400, 300)])
def test_names_stay_in_the_picture(box: tuple[float, ...]) -> None:
    picture = one(label=1, box=box).draw(IMAGE, CLASSES, PALETTE)
    name = (picture < 80).all(-1)  # black ink on green
    assert picture.shape == IMAGE.shape
    assert name.any()
    assert not name[[0, -1]].any()
    assert not name[:, [0, -1]].any()


def test_many_or_tiny_objects_are_counted_in_a_legend() -> None:
    picture = objects(60).draw(IMAGE, CLASSES, PALETTE, 0)
    assert picture.shape[1] > 300
    assert all(coloured(picture[:, 300:], colour).any() for colour in PALETTE)
    assert one(box=(10, 10, 14, 14)).draw(IMAGE, CLASSES, PALETTE).shape[1] > 300


def test_masks_tint_the_image_and_are_outlined() -> None:
    prediction = DetPrediction(*(getattr(one(), name) for name in ("boxes", "scores", "labels", "size")))
    mask = np.zeros((1, 200, 300), np.uint8)
    mask[0, 80:120, 120:180] = 1
    picture = DetPrediction(**{**prediction.__dict__, "masks": encode_all(mask)}).draw(IMAGE, CLASSES, PALETTE)
    assert picture[100, 150].tolist() == [60, 162, 60]
    assert coloured(picture, PALETTE[1])[80, 120:180].all()
    assert picture[70, 150].tolist() == [100, 100, 100]


def test_the_truth_is_drawn_as_a_prediction_without_scores() -> None:
    picture = DetPrediction.draw_truth(IMAGE, truth(), CLASSES, PALETTE)
    predicted = one().draw(IMAGE, CLASSES, PALETTE)
    assert np.array_equal(picture[60:], predicted[60:])
    assert not np.array_equal(picture[:60], predicted[:60])


def test_crowds_are_dashed_and_hatched() -> None:
    mask = torch.zeros(1, 200, 300, dtype=torch.uint8)
    mask[0, 80:120, 120:180] = 1
    picture = DetPrediction.draw_truth(IMAGE, truth(Mask(mask), crowd=True), CLASSES, PALETTE)
    edge = coloured(picture, PALETTE[1])[139, 100:200]
    assert 30 < edge.sum() < 70
    tinted = (picture[85:115, 125:175] == [60, 162, 60]).all(-1)
    assert 0.4 < tinted.mean() < 0.6


@pytest.mark.parametrize("kind", ["masks", "boxes"])
def test_a_truth_of_another_size_is_scaled_to_the_image(kind: str) -> None:
    large = np.full((400, 600, 3), 100, np.uint8)
    target = truth(Mask(torch.ones(1, 200, 300, dtype=torch.uint8)))
    if kind == "boxes":
        boxes = BoundingBoxes(target.boxes, format="XYXY", canvas_size=(200, 300))
        target = BoxTarget(boxes, target.labels, target.crowd, target.area, None, target.image_id)
    picture = DetPrediction.draw_truth(large, target, CLASSES, PALETTE)
    assert coloured(picture, PALETTE[1])[120:280, 200].all()
    assert coloured(picture, PALETTE[1])[279, 200:400].all()
