"""Results go by the names of their inputs, and no two of them by the same."""

from pathlib import Path

import pytest
from PIL import Image

from densevit.engine.writer import output_names
from densevit.errors import DataError
from densevit.inputs import find_files


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x/1.jpg", "a/y/1.jpg"], ["x/1", "y/1"]),
        (["a/x/1.jpg"], ["1"]),
        (["a/1.nii.gz", "a/2.nii"], ["1", "2"]),
        (["a/1.nii.gz", "a/1.nii"], ["1.nii.gz", "1.nii"]),
        (["a/1.jpg", "a/1.png", "a/2.b.png"], ["1.jpg", "1.png", "2.b"]),
        (["a/photo#1.jpg", "a/photo#2.jpg"], ["photo#1", "photo#2"]),
        (["c/data_batch_1.bin#7", "c/data_batch_2.bin#7"], ["data_batch_1/7", "data_batch_2/7"]),
        (["c/test#0", "c/test#10"], ["test/0", "test/10"]),
    ],
)
def test_names_are_short_and_different(paths: list[str], names: list[str]) -> None:
    assert output_names(paths) == names


def test_relative_and_absolute_inputs_may_be_mixed() -> None:
    assert output_names(["a/1.jpg", str(Path.cwd() / "b/1.jpg")]) == ["a/1", "b/1"]


def test_an_image_named_twice_is_predicted_once(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "sub/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    found = find_files([str(tmp_path / "a.jpg"), str(tmp_path), str(tmp_path / "*.png")])
    assert [p.relative_to(tmp_path).as_posix() for p in found] == ["a.jpg", "b.png", "sub/a.jpg"]
    with pytest.raises(DataError, match=r"none\.jpg is no file, no folder"):
        find_files([str(tmp_path / "none.jpg")])
