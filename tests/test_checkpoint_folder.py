"""The folder of a checkpoint: what goes in comes out, what is damaged is said, and nothing in it is run."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from densevit.checkpoint_folder import CONTENT, read_folder, write_folder
from densevit.errors import CheckpointError
from densevit.weights import read_file

CONTENTS: dict[str, Any] = {
    "meta": {"iter": 3, "classes": ("a", "b"), "rate": 0.1 + 0.2, "best": float("inf"), "none": None, "$tuple": [1]},
    "state_dict": {"a.b": torch.randn(5, 3), "low": torch.randn(4).bfloat16(), "empty": torch.zeros(0, 2)},
    "optimizer": {"state": {0: {"step": torch.tensor(7.0)}, 10: {"step": 2}}, "param_groups": [{"betas": (0.9, 0.99)}]},
    "counts": [torch.tensor(2**40), torch.tensor([True, False])],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(CONTENTS, tmp_path / "iter_3")
    return tmp_path / "iter_3"


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


def test_what_goes_in_comes_out(folder: Path) -> None:
    assert_same(read_folder(folder), CONTENTS)
    assert_same(read_file(folder), CONTENTS)


def test_the_pickle_of_torch_is_not_read(folder: Path, ran: Path, attack: object) -> None:
    (folder / ".metadata").write_bytes(pickle.dumps(attack))
    assert_same(read_folder(folder), CONTENTS)
    (folder / CONTENT).unlink()
    with pytest.raises(CheckpointError, match=r"iter_3 is no checkpoint of ours.*pickle.*dcp_to_torch_save"):
        read_folder(folder)
    assert not ran.exists()


def test_code_in_the_place_of_a_tensor_is_not_run(folder: Path, ran: Path, attack: object) -> None:
    described = json.loads((folder / CONTENT).read_text())
    torch.save(attack, folder / "__0_0.distcp")
    for entry in described["tensors"].values():
        for part in entry["parts"]:
            part[3:] = [0, (folder / "__0_0.distcp").stat().st_size]
    (folder / CONTENT).write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match="iter_3 is corrupt"):
        read_folder(folder)
    assert not ran.exists()


def test_a_file_out_of_the_folder_is_not_read(folder: Path) -> None:
    text = (folder / CONTENT).read_text()
    (folder / CONTENT).write_text(text.replace("__0_0.distcp", "../__0_0.distcp"))
    (folder / "__0_0.distcp").rename(folder.parent / "__0_0.distcp")
    with pytest.raises(CheckpointError, match=r"names \.\./__0_0\.distcp.*outside"):
        read_folder(folder)


def test_what_is_damaged_is_named(folder: Path) -> None:
    data, text = (folder / "__0_0.distcp").read_bytes(), (folder / CONTENT).read_text()
    wrong = [text[: len(text) // 2], "[]", "{}", text.replace("bfloat16", "Tensor"), text.replace("[5, 3]", '"x"')]
    for content in wrong:
        (folder / CONTENT).write_text(content)
        with pytest.raises(CheckpointError, match="iter_3 is corrupt"):
            read_folder(folder)
    (folder / CONTENT).write_text(text)
    for content in (data[: len(data) // 2], b"", None):
        if content is None:
            (folder / "__0_0.distcp").unlink()
        else:
            (folder / "__0_0.distcp").write_bytes(content)
        with pytest.raises(CheckpointError, match="iter_3 is corrupt"):
            read_folder(folder)
    with pytest.raises(CheckpointError, match="iter_4 does not exist"):
        read_folder(folder.with_name("iter_4"))
