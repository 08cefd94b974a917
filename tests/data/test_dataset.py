"""A sample depends on its key alone; unreadable files are replaced or left out, and never hidden."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from densevit.data.dataset import DenseDataset, SampleKey, collate
from densevit.data.quarantine import Quarantine
from densevit.data.transforms import build_transforms
from densevit.errors import ConfigError, DataError
from densevit.structures import ClassTarget, Sample


@dataclass(frozen=True)
class Target:
    mask: tv_tensors.Mask
    name: str


class Numbers(DenseDataset):
    """Images whose pixels are their index; those in ``bad`` cannot be read."""

    def __init__(self, size: int, bad: tuple[int, ...] = (), folder: Path = Path("numbers")) -> None:
        self.size, self.bad, self.folder = size, bad, folder
        self.classes, self.palette = ("low", "high"), [(0, 0, 0), (255, 0, 0)]
        self.transforms = build_transforms([dict(type="RandomCrop", size=8), library_noise])

    def __len__(self) -> int:
        return self.size

    def path(self, index: int) -> str:
        return str(self.folder / str(index))

    def read(self, index: int) -> tuple[Tensor, Target, str]:
        if index in self.bad:
            raise DataError(f"{self.path(index)}: broken")
        image = torch.arange(400, dtype=torch.int32).view(1, 20, 20).repeat(3, 1, 1) + 1000 * index
        mask = tv_tensors.Mask(image[0].clone())
        return tv_tensors.Image(image), Target(mask, f"number {index}"), self.path(index)

    def check(self, mode: str) -> None:
        raise NotImplementedError


def library_noise(image: Tensor, fields: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
    """What a user's transform may do: draw from NumPy and Python."""
    return tv_tensors.Image(image + 100_000 * np.random.randint(100) + 10_000_000 * random.randrange(100)), fields


def index_of(sample: Sample) -> int:
    return int(sample.target.mask[0, 0]) // 1000


def pixels(samples: list[Sample]) -> dict[str, Tensor]:
    return {s.meta.path: s.image for s in samples}


def load(dataset: DenseDataset, keys: list[SampleKey], workers: int = 0) -> list[Sample]:
    loader = DataLoader(dataset, 3, sampler=keys, num_workers=workers, collate_fn=collate)  # type: ignore[arg-type]
    return [sample for batch in loader for sample in batch]


def test_image_and_target_are_transformed_together_and_sizes_recorded() -> None:
    sample = Numbers(3)[1]
    assert sample is not None
    assert torch.equal(sample.image[0].int() % 100_000, sample.target.mask)
    assert sample.target.name == "number 1"
    assert (sample.meta.original_size, sample.meta.input_size) == ((20, 20), (8, 8))
    assert type(sample.image) is tv_tensors.Image
    assert type(sample.target.mask) is tv_tensors.Mask


def test_a_crop_does_not_keep_the_whole_image_alive() -> None:
    sample = Numbers(1)[0]
    assert sample is not None
    assert sample.target.mask.untyped_storage().nbytes() == 8 * 8 * 4


def test_a_sample_depends_on_neither_order_nor_workers() -> None:
    keys = [SampleKey(i, epoch=4) for i in range(7)]
    expected = pixels(load(Numbers(7), keys))
    for other in (load(Numbers(7), keys[::-1]), load(Numbers(7), keys, workers=2)):
        assert {k: v.tolist() for k, v in pixels(other).items()} == {k: v.tolist() for k, v in expected.items()}


def test_seed_epoch_index_and_repeat_each_change_the_augmentation() -> None:
    def origin(seed: int, key: SampleKey) -> int:
        dataset = Numbers(300)
        dataset.seed = seed
        sample = dataset[key]
        assert sample is not None
        return int(sample.image[0, 0, 0]) - 1000 * key.index

    assert origin(3, SampleKey(5, 2, 1)) == origin(3, SampleKey(5, 2, 1))
    other = [(4, SampleKey(5, 2, 1)), (3, SampleKey(6, 2, 1)), (3, SampleKey(5, 3, 1)), (3, SampleKey(5, 2, 2))]
    assert len({origin(3, SampleKey(5, 2, 1)), *(origin(*o) for o in other)}) == 5
    assert origin(0, SampleKey(7)) == origin(0, SampleKey(7, 0, 0))


@pytest.mark.parametrize("bad", [(), (1,)])
def test_global_random_states_are_untouched_even_after_an_error(bad: tuple[int, ...]) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    dataset = Numbers(3, bad)
    if bad:
        with pytest.raises(DataError):
            dataset[1]
    else:
        dataset[1]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


def test_metainfo_is_plain_python() -> None:
    assert Numbers(1).metainfo == {"classes": ["low", "high"], "palette": [[0, 0, 0], [255, 0, 0]]}


def test_an_index_out_of_range_ends_iteration() -> None:
    with pytest.raises(IndexError):
        Numbers(2)[2]
    assert len(list(Numbers(2))) == 2  # type: ignore[call-overload]


def quarantined(tmp_path: Path, bad: tuple[int, ...], replace: bool, size: int = 300) -> Numbers:
    for index in range(size):
        (tmp_path / str(index)).write_bytes(b"x" * index)
    dataset = Numbers(size, bad, tmp_path)
    dataset.quarantine = Quarantine(tmp_path / "run" / "bad_samples.jsonl", total=size, replace=replace)
    return dataset


def listed(tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "run" / "bad_samples.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("workers", [0, 2])
def test_training_takes_the_next_readable_sample_and_lists_exactly_the_bad(tmp_path: Path, workers: int) -> None:
    dataset = quarantined(tmp_path, bad=(4, 5, 299), replace=True)
    keys = [SampleKey(i, epoch) for epoch in range(2) for i in (3, 4, 5, 299, 6)]
    indices = [index_of(s) for s in load(dataset, keys, workers)]
    assert indices == [3, 6, 6, 0, 6] * 2
    entries = {Path(e["path"]).name: Path(e["replaced_by"]).name for e in listed(tmp_path)}
    assert entries == {"4": "6", "5": "6", "299": "0"}
    assert len(listed(tmp_path)) == 3


def test_an_entry_tells_error_hash_and_replacement(tmp_path: Path) -> None:
    dataset = quarantined(tmp_path, bad=(1, 2), replace=True)
    (tmp_path / "2").unlink()
    dataset[1]
    first, second = listed(tmp_path)
    assert first == {
        "path": str(tmp_path / "1"),
        "error": f"{tmp_path / '1'}: broken",
        "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
        "others": {},
        "replaced_by": str(tmp_path / "3"),
        "training": True,
    }
    assert second["sha256"] is None


def test_a_replacement_is_augmented_by_the_key_that_asked(tmp_path: Path) -> None:
    dataset = quarantined(tmp_path, bad=(4,), replace=True)
    asked, direct = dataset[4], dataset[5]
    assert asked is not None
    assert direct is not None
    assert index_of(asked) == index_of(direct) == 5
    assert not torch.equal(asked.image, direct.image)
    assert torch.equal(asked.image, dataset[4].image)  # type: ignore[union-attr]


def test_evaluation_leaves_bad_samples_out(tmp_path: Path) -> None:
    dataset = quarantined(tmp_path, bad=(4, 5), replace=False)
    assert dataset[4] is None
    assert [index_of(s) for s in load(dataset, [SampleKey(i) for i in (3, 4, 5, 6)], workers=2)] == [3, 6]
    assert {Path(e["path"]).name: e["replaced_by"] for e in listed(tmp_path)} == {"4": None, "5": None}


@pytest.mark.parametrize("replace", [True, False])
def test_more_than_one_percent_of_bad_samples_end_the_run(tmp_path: Path, replace: bool) -> None:
    dataset = quarantined(tmp_path, bad=(10, 20, 30, 40), replace=replace)
    for index in (10, 20, 30, 30, 10):
        dataset[index]
    with pytest.raises(DataError, match=r"4 of 300 samples.*at most 3 may.*bad_samples\.jsonl.*repair"):
        dataset[40]


@pytest.mark.slow  # PyTorch waits five seconds for each worker that is left after an error
def test_the_limit_reaches_the_user_from_a_worker(tmp_path: Path) -> None:
    dataset = quarantined(tmp_path, bad=tuple(range(10, 20)), replace=True)
    with pytest.raises(DataError, match="at most 3 may"):
        load(dataset, [SampleKey(i) for i in range(30)], workers=1)


def test_one_bad_sample_of_a_small_set_is_allowed_and_a_set_of_bad_ones_ends(tmp_path: Path) -> None:
    assert quarantined(tmp_path, bad=(0,), replace=True, size=5)[0] is not None
    (tmp_path / "run" / "bad_samples.jsonl").unlink()
    with pytest.raises(DataError, match="2 of 5 samples"):
        quarantined(tmp_path, bad=tuple(range(5)), replace=True, size=5)[0]


def test_a_later_run_in_the_same_folder_lists_nothing_twice(tmp_path: Path) -> None:
    for _ in range(2):
        quarantined(tmp_path, bad=(4,), replace=True)[4]
    assert len(listed(tmp_path)) == 1


def test_training_and_evaluation_have_limits_of_their_own(tmp_path: Path) -> None:
    for index in (1, 2, 3):
        quarantined(tmp_path, bad=(1, 2, 3), replace=True)[index]
    assert quarantined(tmp_path, bad=(1, 7), replace=False, size=200)[7] is None
    assert quarantined(tmp_path, bad=(1, 7), replace=False, size=200)[1] is None
    assert len(listed(tmp_path)) == 5


def test_without_a_quarantine_the_error_is_raised() -> None:
    with pytest.raises(DataError, match="broken"):
        Numbers(3, bad=(1,))[1]


def test_other_errors_than_of_data_are_not_quarantined(tmp_path: Path) -> None:
    dataset = quarantined(tmp_path, bad=(), replace=True)

    def fail(image: Tensor, fields: dict[str, Any]) -> Any:
        raise ZeroDivisionError

    dataset.transforms = build_transforms([fail])
    with pytest.raises(ZeroDivisionError):
        dataset[0]
    assert listed(tmp_path) == []


def test_an_image_that_the_transforms_refuse_is_named_with_its_size() -> None:
    numbers = Numbers(2)
    numbers.transforms = build_transforms([dict(type="RandomCrop", size=30)])
    with pytest.raises(ConfigError, match=r"numbers/1 is 20 x 20, which the transforms refuse: .*30.*Put dict"):
        numbers[1]


def test_a_defect_of_a_transform_of_the_user_keeps_its_traceback() -> None:
    def broken(image: Tensor, fields: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        raise ValueError("a defect")

    numbers = Numbers(2)
    numbers.transforms = build_transforms([broken])
    with pytest.raises(ValueError, match="a defect") as error:
        numbers[1]
    assert type(error.value) is ValueError


class Labelled(Numbers):
    """Images of the class that their index says, of two; it says nothing of how to check them."""

    check = DenseDataset.check

    def read(self, index: int) -> tuple[Tensor, Any, str]:
        image, _, path = super().read(index)
        return image, ClassTarget(torch.tensor(index - 1)), path


@pytest.mark.parametrize("workers", [0, 1])
def test_a_label_that_is_no_class_is_named_with_its_file_where_it_is_read(workers: int) -> None:
    fits = load(Labelled(4), [SampleKey(1), SampleKey(2)], workers)
    assert [int(sample.target.label) for sample in fits] == [0, 1]
    for index, label in ((0, -1), (3, 2)):
        with pytest.raises(DataError, match=rf"numbers/{index}: label {label} is none of the 2 classes.*0\.\.1"):
            load(Labelled(4), [SampleKey(index)], workers)


def test_shares_of_classes_are_no_label(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = ClassTarget(torch.tensor([0.2, 0.8]))
    monkeypatch.setattr(Labelled, "read", lambda self, index: (torch.zeros(3, 9, 9), shares, "a"))
    monkeypatch.setattr(Labelled, "transform", lambda self, image, target, path, size: target)
    assert Labelled(1)[0] is shares


def test_a_dataset_that_does_not_say_how_to_check_it_is_read_where_all_of_it_is_checked() -> None:
    dataset = Labelled(4, bad=(1,))
    dataset.check("sample")
    with pytest.raises(DataError, match=r"3 problems in Labelled:") as error:
        dataset.check("all")
    for line in ("numbers/0: label -1", "numbers/1: broken", "numbers/3: label 2"):
        assert line in str(error.value)
    with pytest.raises(ConfigError, match="by 'most'"):
        dataset.check("most")


def test_a_dataset_needs_length_path_and_read_only() -> None:
    assert DenseDataset.__abstractmethods__ == {"__len__", "path", "read"}
