"""Lists of volumes in the layouts that people have, and the folds of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densevit.errors import ConfigError, DataError
from densevit.tasks.medical.case_list import Case, of_fold, read_cases, read_classes, read_description

PATH = Path("data/dataset.json")


def cases(count: int) -> list[Case]:
    """Return cases in an order that is not that of their names."""
    return [Case((f"imagesTr/{i * 7 % count:02d}.nii.gz",), None) for i in range(count)]


def held_out(listed: list[Case], fold: int, folds: int = 5) -> set[str]:
    return {case.images[0] for case in of_fold(listed, fold, folds, held_out=True)}


@pytest.mark.parametrize("count", [5, 13, 23])
def test_folds_share_out_the_cases(count: int) -> None:
    listed = cases(count)
    parts = [of_fold(listed, fold, 5, held_out=True) for fold in range(5)]
    assert sorted(case.images for part in parts for case in part) == sorted(case.images for case in listed)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for fold, part in enumerate(parts):
        assert of_fold(listed, fold, 5, held_out=False) == [case for case in listed if case not in part]


def test_folds_are_those_of_scikit_learn_and_nnu_net_whatever_the_order_of_the_list() -> None:
    model_selection = pytest.importorskip("sklearn.model_selection")
    listed = cases(23)
    names = np.array(sorted(case.images[0] for case in listed))
    split = model_selection.KFold(n_splits=5, shuffle=True, random_state=12345).split(names)
    for fold, (_, held) in enumerate(split):
        assert held_out(listed, fold) == held_out(listed[::-1], fold) == set(names[held])


def test_folds_of_the_list_come_first() -> None:
    listed = [Case((f"{i}.nii",), None, fold=i % 3) for i in range(9)]
    assert held_out(listed, 2) == {"2.nii", "5.nii", "8.nii"}
    with pytest.raises(ConfigError, match="fold 3 is none of 0, 1, 2"):
        held_out(listed, 3)


def test_more_folds_than_cases_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 volumes cannot be shared out to 5 folds"):
        held_out(cases(3), 0)


def test_entries_are_files_with_or_without_labels_and_channels() -> None:
    description = {
        "training": [
            "./imagesTr/a.nii.gz",
            {"image": "imagesTr/b.nii.gz", "label": "labelsTr/b.nii.gz", "fold": 2},
            {"image": ["imagesTr/c_0.nii.gz", "imagesTr/c_1.nii.gz"]},
        ]
    }
    assert read_cases(description, "training", PATH) == [
        Case(("data/imagesTr/a.nii.gz",), None),
        Case(("data/imagesTr/b.nii.gz",), "data/labelsTr/b.nii.gz", 2),
        Case(("data/imagesTr/c_0.nii.gz", "data/imagesTr/c_1.nii.gz"), None),
    ]


@pytest.mark.parametrize(
    "entry",
    [3, None, [], {}, {"image": []}, {"image": [1]}, {"image": "a", "label": 1}, {"image": "a", "fold": "x"}],
)
def test_other_entries_are_named_by_their_place(entry: Any) -> None:
    with pytest.raises(DataError, match=r"dataset\.json: training\[1\] is .*must be like"):
        read_cases({"training": ["a.nii", entry]}, "training", PATH)


def test_a_missing_list_is_named_with_those_that_there_are() -> None:
    with pytest.raises(DataError, match=r"no list 'trainig' of volumes\. Did you mean 'training'"):
        read_cases({"training": ["a.nii"], "labels": {}, "test": []}, "trainig", PATH)


@pytest.mark.parametrize("labels", [{"0": "background", "1": "liver"}, {"background": 0, "liver": 1}])
def test_classes_come_in_both_layouts(labels: dict[str, Any]) -> None:
    assert read_classes({"labels": labels}, PATH, None) == ("background", "liver")
    assert read_classes({"labels": labels}, PATH, ["background", "liver"]) == ("background", "liver")
    with pytest.raises(ConfigError, match=r"background, organ in the config, but background, liver in .*dataset\.json"):
        read_classes({"labels": labels}, PATH, ["background", "organ"])


def test_classes_may_be_of_the_config_alone_but_not_of_neither() -> None:
    assert read_classes({}, PATH, ["background", "liver"]) == ("background", "liver")
    with pytest.raises(ConfigError, match=r'dataset\.json has no "labels": name the classes in the config'):
        read_classes({}, PATH, None)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "must be like"),
        ({"0": "background", "2": "liver"}, r"ids of labels must be 0 to 1, each once, not \[0, 2\]"),
        ({"background": 0, "liver": 0}, "one id of its own"),
        ({"background": 0, "whole": [1, 2]}, "classes that overlap are not supported"),
        ({"background": 0, "liver": True}, "a class has one id of its own"),
    ],
)
def test_other_labels_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_classes({"labels": labels}, PATH, None)


def test_files_that_are_missing_or_no_description_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*dataset\.json .*Get it there"):
        read_description(tmp_path / "dataset.json", "Get it there")
    for text in ("{", "[]", json.dumps("x")):
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(DataError, match=r"dataset\.json: (no valid JSON|holds no JSON object)"):
            read_description(tmp_path / "dataset.json")
    (tmp_path / "dataset.json").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="no valid JSON"):
        read_description(tmp_path / "dataset.json")
