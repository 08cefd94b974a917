"""The sheet of samples shows what was asked for, or tells why not in one line."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densevit.data.demo import make_segmentation

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs/demo/segformer_b0_shapes.py")


def browse(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["browse_dataset.py", CONFIG, *options])
    runpy.run_path(str(ROOT / "tools/browse_dataset.py"), run_name="__main__")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_sheet_of_samples_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str) -> None:
    make_segmentation(tmp_path / "data", train=4, val=4)
    out = tmp_path / "sheets/sheet.png"
    browse(monkeypatch, "--data-root", str(tmp_path / "data"), "--split", split, "--count", "3", "--out", str(out))
    picture = np.asarray(Image.open(out))
    assert picture.shape[0] > 2 * 180
    assert picture.shape[1] > 4 * 180
    assert picture.std() > 20


def test_missing_data_end_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        browse(monkeypatch, "--data-root", str(tmp_path / "nothing"))
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("error: no folder")
