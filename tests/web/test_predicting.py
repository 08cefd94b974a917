"""Predictions for the page: their times, files and errors; the inputs that it offers."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from densevit.errors import DataError
from densevit.predictor import Predictor
from densevit.web.examples import MOST, generated_examples, given_examples
from densevit.web.predicting import duration, naming_upload, predict

TASKS = ("classification", "segmentation", "detection", "video", "volume")
OUTPUTS = {"classification": ".json", "segmentation": ".png", "detection": ".json", "video": ".json"}


@pytest.mark.parametrize("task", TASKS)
def test_a_prediction_has_times_and_a_file(
    task: str, predictor_of: Callable[[str], Predictor], input_of: Callable[[str], Path]
) -> None:
    predictor = predictor_of(task)
    found = predict(predictor, input_of(task))
    found.draw(lambda: "drawn")
    assert list(found.seconds) == ["reading", "model", "drawing"]
    assert all(seconds > 0 for seconds in found.seconds.values())
    assert found.times().startswith("reading ")
    assert found.output().name == f"mine{OUTPUTS.get(task, '.nii.gz')}"
    assert found.output().stat().st_size
    assert found.result.predictor is predictor


def test_the_files_of_a_prediction_go_with_it(
    predictor_of: Callable[[str], Predictor], input_of: Callable[[str], Path]
) -> None:
    found: Any = predict(predictor_of("segmentation"), input_of("segmentation"))
    folder = found.folder
    found.output()
    assert folder.is_dir()
    del found
    gc.collect()
    assert not folder.exists()


def test_an_error_names_the_file_and_not_our_folder(predictor_of: Callable[[str], Predictor], tmp_path: Path) -> None:
    path = tmp_path / "private" / "photo.jpg"
    path.parent.mkdir()
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"^photo\.jpg: an empty file") as error:
        predict(predictor_of("segmentation"), path)
    assert "private" not in str(error.value)


@pytest.mark.parametrize("failure", [MemoryError(), torch.OutOfMemoryError()])
def test_lack_of_memory_is_told_of_the_file(failure: Exception) -> None:
    with pytest.raises(DataError, match=r"^big\.png: memory does not suffice"), naming_upload(Path("x/big.png")):
        raise failure


def test_durations_are_for_people() -> None:
    assert [duration(seconds) for seconds in (0.0123, 0.99, 1.234)] == ["12 ms", "990 ms", "1.2 s"]


@pytest.mark.parametrize("task", ["classification", "segmentation", "video", "volume"])
def test_generated_examples_are_inputs_of_the_model(
    task: str, predictor_of: Callable[[str], Predictor], tmp_path: Path
) -> None:
    predictor = predictor_of(task)
    examples = generated_examples(predictor, tmp_path / "examples")
    kind = {"classification": "object", "segmentation": "landscape", "video": "motion", "volume": "phantom"}[task]
    assert [example.path.name.split(".")[0] for example in examples] == [f"{kind}_{i}" for i in (1, 2, 3, 4)]
    for example in examples:
        assert max(example.thumbnail.shape) == 160
        assert example.thumbnail.std() > 5  # it shows something
    assert predict(predictor, examples[-1].path).result.error is None


def test_given_examples_are_read_and_what_cannot_be_is_said(
    predictor_of: Callable[[str], Predictor], input_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    predictor, good = predictor_of("segmentation"), input_of("segmentation")
    bad = good.with_name("bad.png")
    bad.write_bytes(b"no image")
    assert [example.path for example in given_examples(predictor, [good.parent])] == [good]
    assert "skipped: " in capsys.readouterr().out
    with pytest.raises(DataError, match="none of the 1 files of --examples"):
        given_examples(predictor, [bad])
    bad.unlink()
    for number in range(MOST):
        good.with_name(f"copy_{number:02d}.png").write_bytes(good.read_bytes())
    assert len(given_examples(predictor, [good.parent])) == MOST
    assert f"the first {MOST} of {MOST + 1} files" in capsys.readouterr().out
