"""Pairs of folders become samples with the right labels, and what is wrong with them is told before a run."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from densevit.data.quarantine import Quarantine
from densevit.errors import ConfigError, DataError
from densevit.registry import DATASETS
from densevit.tasks.segmentation.dataset import ADE20K_CLASSES, ADE20KDataset, SegDataset

CAMVID = Path(__file__).parents[2].parent / "shared/data/camvid"


def write_pair(root: Path, name: str, ids: np.ndarray, image_size: tuple[int, int] | None = None) -> None:
    """Write ``images/NAME.jpg`` and ``masks/NAME.png``."""
    height, width = image_size or ids.shape
    for path in (root / f"images/{name}.jpg", root / f"masks/{name}.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / f"images/{name}.jpg"), np.full((height, width, 3), 90, np.uint8))
    cv2.imwrite(str(root / f"masks/{name}.png"), ids)


def ids_with(*values: int) -> np.ndarray:
    ids = np.zeros((6, 8), np.uint8)
    ids[0, : len(values)] = values
    return ids


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six pairs with ids 0, 1 and 2."""
    for i in range(6):
        write_pair(tmp_path, f"street/{i}", ids_with(0, 1, 2))
    return tmp_path


def dataset(root: Path, classes: Any = ("road", "car", "sky"), **options: Any) -> SegDataset:
    options = {"image_dir": "images", "mask_dir": "masks", "transforms": [], **options}
    return SegDataset(classes=classes, data_root=str(root), **options)


def labels(root: Path, **options: Any) -> list[int]:
    """Return the first row of labels of a dataset's first sample."""
    sample = dataset(root, **options)[0]
    assert sample is not None
    return sample.target.mask[0].tolist()


def test_pairs_of_nested_folders_are_sorted_and_matched_by_name(root: Path) -> None:
    write_pair(root, "alley/z", ids_with(1))
    data = dataset(root)
    assert [Path(image).relative_to(root / "images").with_suffix("") for image, _ in data.pairs] == [
        Path(mask).relative_to(root / "masks").with_suffix("") for _, mask in data.pairs
    ]
    assert [Path(data.path(i)).stem for i in range(len(data))] == ["z", "0", "1", "2", "3", "4", "5"]


def test_a_list_chooses_the_pairs_and_their_order(root: Path) -> None:
    (root / "train.txt").write_text("street/4\n\nstreet/1\n")
    data = dataset(root, ann_file="train.txt")
    assert [Path(data.path(i)).stem for i in range(len(data))] == ["4", "1"]
    (root / "masks/street/5.png").unlink()  # what is not listed need not have a mask
    assert len(dataset(root, ann_file="train.txt")) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("street/4\nstreet/4.jpg\n", r"1 of 2 names are no file: street/4\.jpg\. .* such as street/0"),
        ("street/4\nstreet/4\n", "1 of 2 names are listed twice: street/4"),
        ("\n", "names nothing"),
        (None, "no list of names"),
    ],
)
def test_a_list_that_cannot_be_followed_is_told(root: Path, text: str | None, message: str) -> None:
    if text is not None:
        (root / "train.txt").write_text(text)
    with pytest.raises(DataError, match=rf"train\.txt.*{message}|train\.txt: {message}"):
        dataset(root, ann_file="train.txt")


def test_a_sample_has_image_mask_and_meta(root: Path) -> None:
    data: SegDataset = DATASETS.build(
        dict(
            type="SegDataset",
            data_root=str(root),
            image_dir="images",
            mask_dir="masks",
            classes=["a", "b", "c"],
            transforms=[dict(type="Resize", size=[12, 16]), dict(type="RandomHorizontalFlip", p=1.0)],
        )
    )
    sample = data[3]
    assert sample is not None
    assert sample.image.shape == (3, 12, 16)
    assert sample.target.mask.shape == (12, 16)
    assert sample.target.mask.dtype == torch.uint8
    assert sample.target.mask[0, -6:].tolist() == [2, 2, 1, 1, 0, 0]
    assert sample.meta.path.endswith("street/3.jpg")
    assert (sample.meta.original_size, sample.meta.input_size) == ((6, 8), (12, 16))
    assert data.metainfo["classes"] == ["a", "b", "c"]
    assert len({tuple(c) for c in data.metainfo["palette"]}) == 3


def test_other_suffixes_are_matched_by_what_precedes_them(tmp_path: Path) -> None:
    for name, folder in [
        ("berlin_1_photo.PNG", "images"),
        ("berlin_1_ids.png", "masks"),
        ("berlin_1_rgb.png", "masks"),
    ]:
        (tmp_path / folder).mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / folder / name), ids_with(1))
    data = dataset(tmp_path, image_suffix="_photo.png", mask_suffix="_ids.png")
    assert [tuple(Path(p).name for p in pair) for pair in data.pairs] == [("berlin_1_photo.PNG", "berlin_1_ids.png")]


def test_ignored_ids_become_the_ignored_label(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", ids_with(2, 11, 255, 12))
    assert labels(tmp_path, ignore_ids=(11, 12))[:4] == [2, 255, 255, 255]


def test_reduce_zero_label_ignores_zero_and_lowers_the_rest(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", ids_with(0, 1, 2, 3, 255))
    assert labels(tmp_path, reduce_zero_label=True)[:5] == [255, 0, 1, 2, 255]


def test_a_negative_ignored_label_gives_signed_masks(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", ids_with(0, 1, 3))
    assert labels(tmp_path, ignore_index=-1, reduce_zero_label=True)[:3] == [-1, 0, 2]


def test_more_classes_than_uint8_holds_give_int64_masks(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", ids_with(0).astype(np.uint16) + 300)
    sample = dataset(tmp_path, classes=[f"class {i}" for i in range(400)], ignore_index=65535)[0]
    assert sample is not None
    assert sample.target.mask.dtype == torch.int64
    assert sample.target.mask[0, 1] == 300


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(classes="road"), "classes must be a sequence of names"),
        (dict(classes=()), "classes must be"),
        (dict(classes=("a", "b", "a")), "names a more than once"),
        (dict(palette=[(1, 2, 3)]), "palette must be 3 colours"),
        (dict(ignore_index=2), "ignore_index 2 is also a class"),
        (dict(ignore_ids=(70000,)), "cannot hold 70000"),
        (dict(transforms=[dict(type="RandomCorp")]), "Did you mean 'RandomCrop'"),
    ],
)
def test_contradicting_arguments_are_config_errors(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataset(root, **options)


def test_a_missing_folder_is_named_with_the_help(root: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*nowhere.*Get it there"):
        dataset(root, mask_dir="nowhere", download_help="Get it there")


def test_an_empty_split_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match=r"images holds no file that ends in \.tif; check"):
        dataset(root, image_suffix=".tif")


def test_images_without_masks_and_masks_without_images_are_counted_and_listed(root: Path) -> None:
    for i in range(12):
        write_pair(root, f"{i:02d}", ids_with(1))
        (root / f"masks/{i:02d}.png").unlink()
    (root / "images/street/5.jpg").unlink()
    with pytest.raises(DataError) as caught:
        dataset(root)
    message = str(caught.value)
    assert f"{root / 'images'} and {root / 'masks'}: 17 images and 6 masks" in message
    assert "12 images have no mask" in message
    assert "1 masks have no image" in message
    assert message.count(".jpg") == 10
    assert "and 2 more" in message


def test_two_images_of_one_name_are_refused(root: Path) -> None:
    cv2.imwrite(str(root / "images/street/0.png"), ids_with(1))
    with pytest.raises(DataError, match="go by the same name"):
        dataset(root)


@pytest.mark.parametrize("mode", ["sample", "all"])
def test_good_data_pass_the_checks(root: Path, mode: str) -> None:
    dataset(root).check(mode)


def test_an_unknown_check_is_a_config_error(root: Path) -> None:
    with pytest.raises(ConfigError, match="every"):
        dataset(root).check("every")


@pytest.mark.parametrize("mode", ["sample", "all"])
def test_a_size_mismatch_is_found_before_the_run_and_at_reading(root: Path, mode: str) -> None:
    write_pair(root, "street/3", ids_with(1), image_size=(6, 9))
    with pytest.raises(DataError, match=r"1 problem in .*\n.*3\.png is 6 x 8, but .*3\.jpg is 6 x 9"):
        dataset(root).check(mode)
    with pytest.raises(DataError, match="6 x 9"):
        dataset(root)[3]


def test_sizes_are_compared_upright(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 8)).save(root / "images/street/0.jpg", exif=exif)
    dataset(root).check("sample")
    assert dataset(root)[0] is not None


@pytest.mark.parametrize("mode", ["sample", "all"])
def test_labels_out_of_range_are_named_with_the_ways_out(root: Path, mode: str) -> None:
    write_pair(root, "street/2", ids_with(3, 7))
    with pytest.raises(
        DataError, match=r"2\.png: ids 3, 7 found, but 3 classes are 0\.\.2.*reduce_zero_label.*ignore_ids"
    ):
        dataset(root).check(mode)
    with pytest.raises(DataError, match=r"2\.png: ids 3, 7"):
        dataset(root)[2]


def test_with_reduced_labels_the_range_is_as_in_the_files(root: Path) -> None:
    write_pair(root, "street/2", ids_with(4))
    with pytest.raises(DataError, match=r"ids 4 found, but 3 classes are 1\.\.3; list in ignore_ids"):
        dataset(root, reduce_zero_label=True).check("sample")


def test_a_truncated_image_is_found_by_the_full_check_and_quarantined_otherwise(root: Path) -> None:
    path = root / "images/street/4.jpg"
    path.write_bytes(path.read_bytes()[:-3])
    data = dataset(root)
    data.check("sample")
    with pytest.raises(DataError, match=r"1 problem in(.|\n)*4\.jpg"):
        data.check("all")
    data.quarantine = Quarantine(root / "bad_samples.jsonl", total=6, replace=False)
    assert [data[i] is None for i in range(6)] == [False] * 4 + [True, False]


def test_unreadable_headers_are_left_to_the_quarantine_up_to_its_limit(root: Path) -> None:
    (root / "images/street/1.jpg").write_bytes(b"")
    data = dataset(root)
    with pytest.raises(DataError, match="an empty file"):
        data.check("sample")
    data.quarantine = Quarantine(root / "bad_samples.jsonl", total=6, replace=True)
    data.check("sample")
    (root / "masks/street/2.png").write_bytes(b"")
    with pytest.raises(DataError, match="2 problems"):
        data.check("sample")


def test_a_truncated_mask_among_those_looked_at_is_found(root: Path) -> None:
    path = root / "masks/street/4.png"
    path.write_bytes(path.read_bytes()[:-25])
    with pytest.raises(DataError, match=r"1 problem in(.|\n)*4\.png"):
        dataset(root).check("sample")


def test_a_problem_of_many_files_is_printed_once_and_counted(tmp_path: Path) -> None:
    for i in range(25):
        write_pair(tmp_path, f"{i}", ids_with(1), image_size=(5, 5))
    with pytest.raises(DataError) as caught:
        dataset(tmp_path).check("all")
    assert "25 problems" in str(caught.value)
    assert str(caught.value).count("is 6 x 8") == 1
    assert "(25 such files)" in str(caught.value)


def test_ade20k_has_150_classes_and_reduced_labels(tmp_path: Path) -> None:
    for folder, suffix, array in [
        ("images", "jpg", np.zeros((6, 8, 3), np.uint8)),
        ("annotations", "png", ids_with(0, 1, 150)),
    ]:
        (tmp_path / folder / "validation").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / folder / "validation" / f"ADE_val_1.{suffix}"), array)
    data = DATASETS.build(dict(type="ADE20KDataset", data_root=str(tmp_path), split="validation", transforms=[]))
    data.check("all")
    assert data[0].target.mask[0, :3].tolist() == [255, 0, 149]
    assert len(set(data.classes)) == len(data.palette) == 150


@pytest.mark.parametrize(("index", "name"), [(0, "wall"), (2, "sky"), (12, "person"), (20, "car"), (149, "flag")])
def test_ade20k_names_have_their_published_indices(index: int, name: str) -> None:
    assert ADE20K_CLASSES[index] == name


def test_missing_ade20k_tells_where_to_get_it_and_what_to_run_instead(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ADEChallengeData2016\.zip.*make-demo-data"):
        ADE20KDataset([], data_root=str(tmp_path / "ADEChallengeData2016"))
    with pytest.raises(ConfigError, match="training"):
        ADE20KDataset([], split="train")


@pytest.mark.skipif(not CAMVID.is_dir(), reason="CamVid is not beside the repository")
def test_camvid_passes_the_full_check() -> None:
    names = [f"class {i}" for i in range(11)]
    data = SegDataset("images/val", "annotations/val", names, [], data_root=str(CAMVID), ignore_ids=(11,))
    data.check("all")
    assert len(data) == 101
