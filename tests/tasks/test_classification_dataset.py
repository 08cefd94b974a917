"""A folder per class becomes samples with the right labels, and a tree that contradicts the config is refused."""

import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torchvision.tv_tensors import Image

from densevit.data.class_folders import ClassFolders
from densevit.data.quarantine import Quarantine
from densevit.engine.config import load_config
from densevit.errors import ConfigError, DataError
from densevit.registry import DATASETS
from densevit.tasks.classification.dataset import ImageFolderDataset, ImageNetDataset

CIFAR = Path(__file__).parents[2].parent / "shared/data/cifar10.tar"


def write(path: Path, value: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((6, 8, 3), value, np.uint8))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two splits of cats, dogs and an eel."""
    for split in ("train", "val"):
        for name in ("dog/1.jpg", "dog/0.PNG", "cat/x/9.jpeg", "cat/2.jpg", "eel/a#7.jpg", "dog/.hidden.jpg"):
            write(tmp_path / split / name)
        (tmp_path / split / "dog/notes.txt").write_text("no image")
        (tmp_path / split / ".cache").mkdir()
    return tmp_path


def dataset(root: Path, **options: Any) -> ImageFolderDataset:
    return ImageFolderDataset(**{"transforms": [], "data_root": str(root), **options})


def test_files_are_sorted_by_class_then_name_and_labelled_by_folder(root: Path) -> None:
    data = dataset(root)
    assert data.classes == ("cat", "dog", "eel")
    names = [str(Path(data.path(i)).relative_to(root / "train")) for i in range(len(data))]
    assert names == ["cat/2.jpg", "cat/x/9.jpeg", "dog/0.PNG", "dog/1.jpg", "eel/a#7.jpg"]
    assert [int(data.read(i)[1].label) for i in range(len(data))] == [0, 0, 1, 1, 2]


def test_a_sample_has_image_label_and_meta(root: Path) -> None:
    transforms = [
        dict(type="RandomResizedCrop", size=[16, 16]),
        dict(type="RandAugment"),
        dict(type="RandomErasing", p=1.0),
    ]
    data = DATASETS.build(dict(type="ImageFolderDataset", data_root=str(root), split="val", transforms=transforms))
    sample = data[4]
    assert isinstance(sample.image, Image)
    assert (sample.image.shape, sample.image.dtype) == ((3, 16, 16), torch.uint8)
    assert torch.equal(sample.target.label, torch.tensor(2))
    assert sample.meta.path.endswith("val/eel/a#7.jpg")
    assert (sample.meta.original_size, sample.meta.input_size) == ((6, 8), (16, 16))


def test_a_cached_image_is_read_once_and_whoever_writes_into_it_spoils_nothing(root: Path) -> None:
    cached, plain = dataset(root, cache=True), dataset(root)
    image, target, path = cached.read(0)
    assert isinstance(image, Image)
    expected = image.clone()
    image.zero_()
    write(Path(path), value=7)
    again = cached.read(0)
    assert torch.equal(again[0], expected)
    assert (again[1], again[2]) == (target, path)
    assert not torch.equal(plain.read(0)[0], expected)


def test_classes_of_the_config_decide_the_order(root: Path) -> None:
    data = dataset(root, classes=["eel", "dog", "cat"])
    assert [int(data.read(i)[1].label) for i in range(len(data))] == [0, 1, 1, 2, 2]
    assert Path(data.path(0)).name == "a#7.jpg"


@pytest.mark.parametrize("classes", [None, ("cat", "dog", "eel")])
def test_missing_extra_and_empty_folders_are_all_named_with_the_way_out(root: Path, classes: Any) -> None:
    (root / "val/eel/a#7.jpg").unlink()
    (root / "val/cat").rename(root / "val/Cat")
    with pytest.raises(DataError) as caught:
        dataset(root, split="val", classes=classes)
    message = str(caught.value)
    assert str(root / "val") in message
    assert "1 classes have no folder: cat;" in message
    assert "1 classes have no image: eel;" in message
    assert "1 folders are no class: Cat." in message
    assert "list in classes" in message


def test_an_empty_class_of_the_training_split_is_refused(root: Path) -> None:
    (root / "train/fox").mkdir()
    with pytest.raises(DataError, match="1 classes have no image: fox"):
        dataset(root)


def test_splits_whose_folders_differ_are_refused_though_the_numbers_agree(root: Path) -> None:
    (root / "val/eel").rename(root / "val/fox")
    with pytest.raises(DataError, match="have no folder: eel; 1 folders are no class: fox"):
        dataset(root, split="val")


def test_without_the_split_that_names_the_classes_they_must_be_given(root: Path) -> None:
    (root / "train").rename(root / "training")
    with pytest.raises(DataError, match=r"no folder .*train .*list them in classes, or set class_split"):
        dataset(root, split="val")
    assert dataset(root, split="val", class_split="training").classes == ("cat", "dog", "eel")
    assert dataset(root, split="val", classes=("cat", "dog", "eel")).classes == ("cat", "dog", "eel")


def test_images_without_class_folders_are_explained(root: Path) -> None:
    write(root / "heap/1.jpg")
    with pytest.raises(DataError, match=r"heap holds no folders.*heap/<class>/<image>\. Sort them"):
        dataset(root, split="heap", download_help="Sort them")


def test_a_missing_split_is_named_with_the_help(root: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*test .*Get it there"):
        dataset(root, split="test", download_help="Get it there")


def test_classes_named_twice_are_a_config_error(root: Path) -> None:
    with pytest.raises(ConfigError, match="names dog more than once"):
        dataset(root, classes=("dog", "cat", "dog"))


@pytest.mark.parametrize("mode", ["sample", "all"])
def test_good_data_pass_the_checks(root: Path, mode: str) -> None:
    dataset(root).check(mode)


def test_an_unknown_check_is_a_config_error(root: Path) -> None:
    with pytest.raises(ConfigError, match="every"):
        dataset(root).check("every")


def test_a_truncated_image_is_found_by_the_full_check_and_quarantined_otherwise(root: Path) -> None:
    path = root / "train/dog/1.jpg"
    path.write_bytes(path.read_bytes()[:-3])
    data = dataset(root)
    data.check("sample")
    with pytest.raises(DataError, match=r"1 problem in(.|\n)*dog/1\.jpg"):
        data.check("all")
    data.quarantine = Quarantine(root / "bad_samples.jsonl", total=5, replace=False)
    assert [data[i] is None for i in range(5)] == [False, False, False, True, False]


def test_unreadable_headers_are_left_to_the_quarantine_up_to_its_limit(root: Path) -> None:
    (root / "train/cat/2.jpg").write_bytes(b"")
    data = dataset(root)
    with pytest.raises(DataError, match="an empty file"):
        data.check("sample")
    data.quarantine = Quarantine(root / "bad_samples.jsonl", total=5, replace=True)
    data.check("sample")
    sample = data[0]
    assert sample is not None
    assert sample.meta.path.endswith("9.jpeg")
    (root / "train/dog/0.PNG").write_bytes(b"not an image")
    with pytest.raises(DataError, match="2 problems"):
        data.check("sample")


def test_imagenet_wants_a_thousand_folders_and_tells_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*ILSVRC2012_img_train\.tar.*val/n01440764"):
        ImageNetDataset([], data_root=str(tmp_path))
    write(tmp_path / "val/ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(DataError, match=r"holds no folders.*moved into the folders of their synsets"):
        ImageNetDataset([], data_root=str(tmp_path), split="val")
    write(tmp_path / "val/n01440764/ILSVRC2012_val_00000293.JPEG")
    with pytest.raises(DataError, match="holds 1 folders, but ImageNet has 1000"):
        ImageNetDataset([], data_root=str(tmp_path), split="val")
    for i in range(1000):
        (tmp_path / f"val/n{i:08d}").mkdir()
        (tmp_path / f"val/n{i:08d}/1.JPEG").touch()
    (tmp_path / "val/n00000999/1.JPEG").unlink()
    (tmp_path / "val/n00000999").rmdir()
    data = ImageNetDataset([], data_root=str(tmp_path), split="val")
    assert (len(data), len(data.classes), data.classes[0], data.classes[-1]) == (1000, 1000, "n00000000", "n01440764")


def test_the_index_of_many_files_is_small(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(2000):
            (tmp_path / name / f"{name}{i:08d}_{i:04d}.JPEG").touch()
    tracemalloc.start()
    files = ClassFolders(tmp_path, ("a", "b"), (".jpeg",))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(files) == 4000
    assert files.path(3999) == str(tmp_path / "b/b00001999_1999.JPEG")
    assert held / 4000 < 40  # bytes a file, of a name of 19


@pytest.mark.skipif(not CIFAR.is_file(), reason="CIFAR-10 is not beside the repository")
@pytest.mark.slow
def test_cifar_as_image_folders_is_read(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(CIFAR) as archive:
        archive.extractall(tmp_path, filter="data")
    train, test = dataset(tmp_path), dataset(tmp_path, split="test")
    assert (len(train), len(test), train.classes) == (50_000, 10_000, test.classes)
    train.check("sample")
    assert train.read(49_999)[0].shape == (3, 32, 32)


@pytest.mark.parametrize("size", [(32, 48), (64, 64), (300, 200)])
def test_the_recipe_of_the_tour_takes_images_of_any_size(root: Path, size: tuple[int, int]) -> None:
    for path in root.glob("train/*/*.*g"):
        assert cv2.imwrite(str(path), np.zeros((*size, 3), np.uint8))
    recipe = load_config(Path(__file__).parents[2] / "configs/demo/cct_2_3x2_objects.py")
    sample = dataset(root, split="train", transforms=recipe.train_dataloader.dataset.transforms)[0]
    assert sample is not None
    assert sample.image.shape == (3, 64, 64)
