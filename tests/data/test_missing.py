"""What is not there is named with what has nearly its name."""

from pathlib import Path

import pytest

from densevit.data.missing import missing_path


def test_the_nearest_name_beside_the_first_part_that_is_missing_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "mine/masks").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    told = str(missing_path("folder", tmp_path / "mien/masks/val"))
    assert told.startswith(f"no folder {tmp_path}/mien/masks/val (working directory: {Path.cwd()}). ")
    assert f"Did you mean {tmp_path}/mine? Correct the path" in told
    assert f"Did you mean {tmp_path}/mine/masks? " in str(missing_path("folder", tmp_path / "mine/mask"))


def test_without_a_similar_name_only_the_help_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(missing_path("file", Path("data/a.json"), "Get it there")).endswith("). Get it there")
    Path("list.txt").touch()
    assert "Did you mean" not in str(missing_path("folder", Path("list.txt")))
    assert "Did you mean" not in str(missing_path("folder", Path("list.txt/a")))
