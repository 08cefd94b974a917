"""CIFAR is read as its site offers it, without running a pickle, and what is wrong with a file is told by name."""

import os
import pickle
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from densevit.data import cifar
from densevit.data.cifar import CLASSES, read_cifar
from densevit.errors import ConfigError, DataError

ROWS = 6


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the files of every version hold a few images."""
    rows = {"train": ROWS, "test": ROWS}
    small = {n: tuple(layout._replace(rows=rows) for layout in layouts) for n, layouts in cifar.LAYOUTS.items()}
    monkeypatch.setattr(cifar, "LAYOUTS", small)


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes bytes as Python 2, by which the site's files were written, wrote its strings."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, data: bytes) -> None:
        self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(data)

    dispatch[bytes] = save_string


def as_python_2(content: Any) -> bytes:
    file = BytesIO()
    Python2Pickler(file, protocol=2).dump(content)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def as_python_3(content: Any) -> bytes:
    return pickle.dumps(content, protocol=4)


def batch(seed: int, num_classes: int) -> dict[bytes, Any]:
    rng = np.random.default_rng(seed)
    labels = {b"labels" if num_classes == 10 else b"fine_labels": rng.integers(0, num_classes, ROWS).tolist()}
    return {b"data": rng.integers(0, 256, (ROWS, 3072), dtype=np.uint8), **labels, b"filenames": [b"a.png"] * ROWS}


def write_python(root: Path, num_classes: int, dump: Callable[[Any], bytes] = as_python_2) -> list[dict[bytes, Any]]:
    layout = cifar.LAYOUTS[num_classes][0]
    names = [*layout.files["train"], *layout.files["test"]]
    (root / layout.folder).mkdir(parents=True)
    batches = [batch(i, num_classes) for i in range(len(names))]
    for name, content in zip(names, batches, strict=True):
        (root / layout.folder / name).write_bytes(dump(content))
    return batches


def write_binary(root: Path, num_classes: int) -> list[dict[bytes, Any]]:
    layout = cifar.LAYOUTS[num_classes][1]
    names = [*layout.files["train"], *layout.files["test"]]
    (root / layout.folder).mkdir(parents=True)
    batches = [batch(i, num_classes) for i in range(len(names))]
    for name, content in zip(names, batches, strict=True):
        labels = np.array(content[b"labels" if num_classes == 10 else b"fine_labels"], np.uint8)[:, None]
        coarse = np.zeros((ROWS, int(num_classes == 100)), np.uint8)
        (root / layout.folder / name).write_bytes(np.hstack([coarse, labels, content[b"data"]]).tobytes())
    return batches


@pytest.mark.parametrize("num_classes", [10, 100])
@pytest.mark.parametrize("version", ["python 2", "python 3", "binary"])
def test_every_version_gives_the_images_and_labels_in_order(tmp_path: Path, num_classes: int, version: str) -> None:
    if version == "binary":
        batches = write_binary(tmp_path, num_classes)
    else:
        batches = write_python(tmp_path, num_classes, as_python_2 if version == "python 2" else as_python_3)
    for split, expected in (("train", batches[:-1]), ("test", batches[-1:])):
        found = read_cifar(tmp_path, split, num_classes)
        data = np.concatenate([b[b"data"] for b in expected])
        labels = [n for b in expected for n in b[b"labels" if num_classes == 10 else b"fine_labels"]]
        assert found.images.dtype == np.uint8
        assert np.array_equal(found.images, data.reshape(-1, 3, 32, 32))
        assert found.labels.tolist() == labels
        assert len(found.files) == len(expected)


def test_the_folder_itself_may_be_given(tmp_path: Path) -> None:
    write_binary(tmp_path, 10)
    assert len(read_cifar(tmp_path / "cifar-10-batches-bin", "train", 10).images) == 5 * ROWS


def test_a_hundred_classes_have_a_hundred_names() -> None:
    assert len(set(CLASSES[100])) == 100
    assert sorted(CLASSES[100]) == list(CLASSES[100])


@pytest.mark.parametrize(
    ("arguments", "message"), [(("val", 10), "'val'"), (("train", 20), "10 or 100 classes.*not 20")]
)
def test_other_splits_and_numbers_of_classes_are_config_errors(
    tmp_path: Path, arguments: tuple[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_cifar(tmp_path, *arguments)


def test_missing_data_tell_what_to_download_and_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no CIFAR-10 in .*cifar-10-python\.tar\.gz.*data_batch_1, .*--data-root"):
        read_cifar(tmp_path, "train", 10)


def test_the_other_cifar_is_recognised(tmp_path: Path) -> None:
    write_python(tmp_path, 100)
    with pytest.raises(DataError, match="holds cifar-100-python: is num_classes meant to be 100"):
        read_cifar(tmp_path, "train", 10)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_python(tmp_path, 10)
    (tmp_path / "cifar-10-batches-py/data_batch_3").unlink()
    with pytest.raises(DataError, match=r"no file .*data_batch_3\. Download"):
        read_cifar(tmp_path, "train", 10)


@pytest.mark.parametrize("kept", [0, 1, 100, 5000, -1])
def test_a_truncated_pickle_is_named(tmp_path: Path, kept: int) -> None:
    write_python(tmp_path, 10)
    path = tmp_path / "cifar-10-batches-py/data_batch_2"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"data_batch_2: damaged or truncated.*Download"):
        read_cifar(tmp_path, "train", 10)


@pytest.mark.parametrize(
    ("kept", "message"), [(-1, "truncated: .* no multiple of 3073"), (-3073, "holds 5 images"), (0, "holds 0 images")]
)
def test_a_truncated_binary_is_named(tmp_path: Path, kept: int, message: str) -> None:
    write_binary(tmp_path, 10)
    path = tmp_path / "cifar-10-batches-bin/test_batch.bin"
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) + kept if kept else 0])
    with pytest.raises(DataError, match=rf"test_batch\.bin:? ?{message}.*Download"):
        read_cifar(tmp_path, "test", 10)


@pytest.mark.parametrize("version", ["py", "bin"])
def test_damage_anywhere_is_a_data_error_or_changes_pixels_only(tmp_path: Path, version: str) -> None:
    write_python(tmp_path, 10) if version == "py" else write_binary(tmp_path, 10)
    path = next((tmp_path / f"cifar-10-batches-{version}").glob("test_batch*"))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    head, tail = np.arange(160), len(whole) - np.arange(1, 160)  # the middle is pixels
    for place in (*head, *tail, *rng.integers(0, len(whole), 50)):
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            found = read_cifar(tmp_path, "test", 10)
        except DataError as error:
            assert path.name in str(error)  # noqa: PT017
        else:
            assert found.images.shape == (ROWS, 3, 32, 32)
            assert 0 <= found.labels.min() <= found.labels.max() < 10


@pytest.mark.parametrize("label", [10, -1, 2**70])
def test_a_label_out_of_range_is_named_with_its_row(tmp_path: Path, label: int) -> None:
    content = write_python(tmp_path, 10)[-1]
    content[b"labels"][4] = label
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(as_python_2(content))
    message = rf"row 4 has label {label}, not one of 0\.\.9" if label < 2**63 else "damaged: a label is no class"
    with pytest.raises(DataError, match=rf"test_batch: {message}"):
        read_cifar(tmp_path, "test", 10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "not a batch of CIFAR-10"),
        ({b"data": [1], b"labels": [1]}, "no array of pixels"),
        ({b"data": np.zeros((ROWS, 3072), np.uint8), b"labels": ["cat"] * ROWS}, "no list of labels"),
        ({b"data": np.zeros((ROWS, 3072), np.float32), b"labels": [1] * ROWS}, "not one of bytes"),
        ({b"data": np.zeros((ROWS, 3071), np.uint8), b"labels": [1] * ROWS}, "holds 6 images"),
        ({b"data": np.zeros((ROWS, 3072), np.uint8), b"labels": [1] * 5}, "5 labels, not 6"),
        ({b"data": np.array([{}]), b"labels": [1]}, "not one of bytes"),
    ],
)
def test_pickles_of_something_else_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    write_python(tmp_path, 10)
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(as_python_2(content))
    with pytest.raises(DataError, match=message):
        read_cifar(tmp_path, "test", 10)


@pytest.mark.parametrize("content", [b"\x80\x02Nr\xff\xff\xff\x00.", b"Np16777215\n."])
def test_a_number_that_would_take_all_memory_is_refused(tmp_path: Path, content: bytes) -> None:
    write_python(tmp_path, 10)
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(content)
    with pytest.raises(DataError, match=r"test_batch: damaged: it numbers more parts than it has"):
        read_cifar(tmp_path, "test", 10)


class Hostile:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("kind", ["system", "eval", "import"])
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, protocol: int, kind: str) -> None:
    trace = tmp_path / "trace"
    hostile = {
        "system": Hostile(os.system, f"touch {trace}"),
        "eval": Hostile(eval, f"open({str(trace)!r}, 'w')"),
        "import": Hostile(__import__, "antigravity"),
    }[kind]
    write_python(tmp_path, 10)
    content = pickle.dumps({b"data": hostile, b"labels": [1]}, protocol=protocol)
    (tmp_path / "cifar-10-batches-py/data_batch_1").write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_1: unsafe: the pickle asks for .*Download"):
        read_cifar(tmp_path, "train", 10)
    assert not trace.exists()
