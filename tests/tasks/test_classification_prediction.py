"""Pictures and files of predictions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from densevit.data.class_prediction import ClassPrediction
from densevit.errors import DataError
from densevit.structures import ClassTarget

CLASSES = [f"class {i}" for i in range(7)]
PALETTE = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (250, 250, 0), (250, 0, 250), (0, 250, 250), (90, 60, 30)]
SCORES = torch.tensor([0.02, 0.5, 0.2, 0.15, 0.1, 0.03, 0.0])
IMAGE = np.full((32, 48, 3), 100, np.uint8)


def bar_length(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture[:, 240:] == colour).all(-1).sum(1).max())


def test_a_small_image_is_enlarged_beside_bars_as_long_as_the_scores() -> None:
    drawn = ClassPrediction(SCORES).draw(IMAGE, CLASSES, PALETTE)
    assert drawn.shape[0] >= 160
    assert (drawn[:160, :240] == 100).all()
    lengths = [bar_length(drawn, colour) for colour in PALETTE]
    assert lengths[1] == pytest.approx(2.5 * lengths[2], abs=3)
    assert lengths[1] == pytest.approx(5 * lengths[4], abs=5)
    assert lengths[0] == lengths[6] == 0, "the five best are drawn"


def test_a_large_image_keeps_its_size() -> None:
    drawn = ClassPrediction(SCORES).draw(np.full((300, 200, 3), 100, np.uint8), CLASSES, PALETTE)
    assert drawn.shape[0] == 300
    assert (drawn[:, :200] == 100).all()


def test_one_class_is_enough_to_draw() -> None:
    assert ClassPrediction(torch.ones(1)).draw(IMAGE, ["all"], PALETTE).shape[0] >= 160


def test_the_truth_is_drawn_as_a_name_or_as_mixed_shares() -> None:
    named = ClassPrediction.draw_truth(IMAGE, ClassTarget(torch.tensor(3)), CLASSES, PALETTE)
    assert bar_length(named, PALETTE[3]) > 0
    assert sum(bar_length(named, colour) > 0 for colour in PALETTE) == 1
    mixed = ClassPrediction.draw_truth(IMAGE, ClassTarget(SCORES), CLASSES, PALETTE)
    assert np.array_equal(mixed, ClassPrediction(SCORES).draw(IMAGE, CLASSES, PALETTE))


def test_scores_are_read_back_to_the_bit(tmp_path: Path) -> None:
    scores = torch.randn(1000).mul(9).softmax(0)
    path = ClassPrediction(scores).save(tmp_path / "folder/a.b")
    assert path.name == "a.b.json"
    assert torch.equal(ClassPrediction.load(tmp_path / "folder/a.b").scores, scores)


@pytest.mark.parametrize("content", [None, "", "[1]", '{"scores": ["a"]}', '{"score": [1]}'])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"a\.json: no scores.*densevit test --out"):
        ClassPrediction.load(tmp_path / "a")


def test_the_summary_tells_the_best_class_and_the_next() -> None:
    summary = ClassPrediction(SCORES).summary(CLASSES)
    assert summary["class"] == "class 1"
    assert list(summary["scores"]) == ["class 1", "class 2", "class 3", "class 4", "class 5"]
    assert summary["scores"]["class 2"] == pytest.approx(0.2)
    json.dumps(summary)
