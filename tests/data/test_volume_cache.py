"""Entries are reused as long as nothing that they were made of has changed, and heal; a cache never breaks a run."""

import json
import os
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from densevit.data import volume_cache
from densevit.data.volume_cache import VolumeCache
from densevit.errors import ConfigError

AFFINE = torch.diag(torch.tensor([2.0, 3, 4, 1], dtype=torch.float64))


class Maker:
    """Makes a large and some small tensors, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, Tensor]:
        self.calls += 1
        image = torch.arange(20**3, dtype=torch.float32).reshape(1, 20, 20, 20)
        return {
            "image": MetaTensor(image, affine=AFFINE),
            "mask": MetaTensor((image % 3).byte(), affine=AFFINE),
            "indices": torch.arange(5),
            "none": torch.zeros(0, dtype=torch.int64),
        }


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "a.nii").write_bytes(b"content")
    return str(tmp_path / "a.nii")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "deep"


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        x.dtype == other[name].dtype and torch.equal(torch.as_tensor(x), torch.as_tensor(other[name]))
        for name, x in one.items()
    )


def calls(folder: Path, files: list[str], recipe: object = "a") -> int:
    """Return how often a new process would prepare these files."""
    make = Maker()
    assert same(VolumeCache(folder, recipe).get(files, make), Maker()())
    return make.calls


def test_what_was_made_is_found_again_with_its_grid(folder: Path, file: str) -> None:
    make, cache = Maker(), VolumeCache(folder, {"prepare": [dict(type="Spacingd", pixdim=(1, 1, 2))]})
    made = [cache.get([file], make) for _ in range(3)]
    assert make.calls == 1
    assert same(made[0], made[1])
    assert same(made[0], made[2])
    assert torch.equal(made[1]["image"].affine, AFFINE)
    assert type(made[1]["indices"]) is Tensor


def test_a_change_of_what_was_cached_does_not_stay(folder: Path, file: str) -> None:
    make, cache = Maker(), VolumeCache(folder, 0)
    cache.get([file], make)
    cache.get([file], make)["image"].zero_()
    assert same(cache.get([file], make), make())


def test_other_content_recipes_and_files_are_misses(folder: Path, file: str, tmp_path: Path) -> None:
    assert calls(folder, [file]) == 1
    assert calls(folder, [file]) == 0
    assert calls(folder, [file], recipe="b") == 1
    assert calls(folder, [file, file]) == 1
    status = os.stat(file)
    Path(file).write_bytes(b"CONTENT")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert calls(folder, [file]) == 1, "same name, size and time, but other content"
    (tmp_path / "b.nii").write_bytes(b"content")
    assert calls(folder, [str(tmp_path / "b.nii")]) == 0, "the content counts, not the name"


def test_a_file_that_changes_during_a_run_is_prepared_anew(folder: Path, file: str) -> None:
    make, cache = Maker(), VolumeCache(folder, 0)
    cache.get([file], make)
    Path(file).write_bytes(b"other content")
    cache.get([file], make)
    assert make.calls == 2


def test_another_version_of_a_package_or_of_the_format_is_a_miss(
    folder: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert calls(folder, [file]) == 1
    monkeypatch.setattr(volume_cache, "FORMAT", 0)
    assert calls(folder, [file]) == 1
    monkeypatch.setattr(volume_cache, "version", lambda name: "9.9" if name == "monai" else "1.0")
    assert calls(folder, [file]) == 1


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    """Change a bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [flip, halve, empty, os.unlink])
@pytest.mark.parametrize("name", ["image.npy", "indices.npy", "image.affine.npy", "checksums.json"])
def test_damaged_entries_are_made_anew_with_a_warning(
    folder: Path, file: str, harm: Callable[[Path], object], name: str
) -> None:
    calls(folder, [file])
    (entry,) = folder.iterdir()
    harm(entry / name)
    with pytest.warns(UserWarning, match="damaged"):
        assert calls(folder, [file]) == 1
    assert calls(folder, [file]) == 0


def test_a_damaged_list_of_checksums_loses_nothing(folder: Path, file: str) -> None:
    calls(folder, [file])
    (entry,) = folder.iterdir()
    intact = (entry / "checksums.json").read_bytes()
    for place in range(0, len(intact), 4):
        entry.mkdir(exist_ok=True)
        (entry / "checksums.json").write_bytes(intact[:place] + bytes([intact[place] ^ 2]) + intact[place + 1 :])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            calls(folder, [file])


def test_an_array_that_the_checksums_do_not_list_is_not_forgotten(folder: Path, file: str) -> None:
    calls(folder, [file])
    (entry,) = folder.iterdir()
    checksums = json.loads((entry / "checksums.json").read_text())
    for harmed in ({name: value for name, value in checksums.items() if name != "indices"}, {}, []):
        entry.mkdir(exist_ok=True)
        (entry / "checksums.json").write_text(json.dumps(harmed))
        with pytest.warns(UserWarning, match="damaged"):
            assert calls(folder, [file]) == 1


def test_writers_at_the_same_time_leave_one_whole_entry(folder: Path, file: str) -> None:
    caches = [VolumeCache(folder, 0) for _ in range(8)]
    with warnings.catch_warnings(), ThreadPoolExecutor(8) as pool:
        warnings.simplefilter("error")
        found = list(pool.map(lambda cache: cache.get([file], Maker()), caches))
    assert all(same(one, Maker()()) for one in found)
    assert len(list(folder.iterdir())) == 1
    assert calls(folder, [file], recipe=0) == 0


def test_where_nothing_can_be_written_one_warning_is_given(tmp_path: Path, file: str) -> None:
    (tmp_path / "no folder").write_text("")
    cache, make = VolumeCache(tmp_path / "no folder", 0), Maker()
    with pytest.warns(UserWarning, match="going on without a cache") as caught:
        assert same(cache.get([file], make), cache.get([file], make))
    assert (make.calls, len(caught)) == (2, 1)


def test_a_full_disk_leaves_nothing_behind(folder: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(volume_cache.np, "save", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert calls(folder, [file]) == 1
    assert list(folder.iterdir()) == []


def test_what_a_killed_process_left_is_removed_a_day_later(folder: Path, file: str) -> None:
    for name, age in (("old", 2 * 86400), ("new", 60)):
        (folder / f".part-{name}").mkdir(parents=True)
        then = os.stat(folder).st_mtime - age
        os.utime(folder / f".part-{name}", (then, then))
    calls(folder, [file])
    assert {path.name for path in folder.glob(".part*")} == {".part-new"}


def test_a_missing_file_is_left_to_who_reads_it(folder: Path, file: str) -> None:
    os.unlink(file)
    assert calls(folder, [file]) == 1
    assert not folder.exists()


def test_recipes_are_plain_values(folder: Path) -> None:
    with pytest.raises(ConfigError, match="plain values"):
        VolumeCache(folder, [len])


def test_entries_hold_no_pickles(folder: Path, file: str) -> None:
    calls(folder, [file])
    (entry,) = folder.iterdir()
    assert {path.suffix for path in entry.iterdir()} == {".npy", ".json"}
    shutil.rmtree(entry)
    assert calls(folder, [file]) == 1
