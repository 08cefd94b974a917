"""CocoDataset gives images with their objects, and finds what does not fit before a run."""

import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.tv_tensors import BoundingBoxes, Mask

from densevit.commands.browse_data import draw_sample
from densevit.data.batch import collate_batch
from densevit.data.dataset import SampleKey
from densevit.data.quarantine import Quarantine
from densevit.errors import ConfigError, DataError
from densevit.registry import DATASETS
from densevit.tasks.detection.dataset import Coco2017Dataset, CocoDataset
from densevit.tasks.detection.masks import rasterise
from densevit.tasks.detection.prediction import DetPrediction

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared/data"
SIZES = [(20, 30), (40, 10), (16, 16)]  # height and width


def write(root: Path, sizes: Any = SIZES) -> dict[str, Any]:
    """Write images 0.png, 1.png, ... with ids from 10 on; of the first a house and a tree, of the second a crowd."""
    square = [[1, 1, 5, 1, 5, 5, 1, 5]]
    plain = {"iscrowd": 0, "area": 16, "bbox": [1, 1, 4, 4], "segmentation": square}
    content = {
        "images": [{"id": 10 + i, "file_name": f"{i}.png", "height": h, "width": w} for i, (h, w) in enumerate(sizes)],
        "categories": [{"id": 3, "name": "house"}, {"id": 8, "name": "tree"}],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 3, **plain},
            {"id": 2, "image_id": 10, "category_id": 8, **plain},
            {"id": 3, "image_id": 11, "category_id": 8, **plain, "iscrowd": 1},
        ],
    }
    (root / "photos").mkdir(exist_ok=True)
    for i, size in enumerate(sizes):
        cv2.imwrite(str(root / f"photos/{i}.png"), np.full((*size, 3), 90, np.uint8))
    (root / "instances.json").write_text(json.dumps(content))
    return content


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path)
    return tmp_path


def dataset(root: Path, transforms: Any = (), **options: Any) -> CocoDataset:
    options = {"ann_file": "instances.json", "image_dir": "photos", **options}
    return CocoDataset(transforms, data_root=str(root), **options)


def test_a_target_has_the_objects_of_the_image(root: Path) -> None:
    data = dataset(root, masks=True)
    image, target, path = data.read(0)
    assert image.shape == (3, 20, 30)
    assert Path(path) == root / "photos/0.png"
    assert isinstance(target.boxes, BoundingBoxes)
    assert target.boxes.canvas_size == (20, 30)
    assert target.boxes.tolist() == [[1, 1, 5, 5]] * 2
    assert (target.labels.tolist(), target.labels.dtype) == ([0, 1], torch.int64)
    assert (target.crowd.tolist(), target.area.tolist()) == ([False, False], [16, 16])
    assert isinstance(target.masks, Mask)
    assert (target.masks.shape, target.masks.dtype) == ((2, 20, 30), torch.uint8)
    assert target.masks[0].sum() == 16
    assert (target.image_id.item(), target.image_id.dtype) == (10, torch.int64)
    assert data.read(1)[1].crowd.tolist() == [True]


def test_an_image_may_have_no_object(root: Path) -> None:
    sample = dataset(root, masks=True)[2]
    assert sample is not None
    assert [tuple(sample.target.boxes.shape), tuple(sample.target.masks.shape)] == [(0, 4), (0, 16, 16)]


def test_a_sample_has_plain_boxes_after_the_transforms(root: Path) -> None:
    sample = dataset(root, [dict(type="RandomHorizontalFlip", p=1.0)], masks=True)[0]
    assert sample is not None
    assert type(sample.target.boxes) is Tensor
    assert sample.target.boxes.dtype == torch.float32
    assert sample.target.boxes.tolist() == [[25, 1, 29, 5]] * 2
    assert sample.target.masks[0, 1:5, 25:29].sum() == 16
    assert (sample.meta.original_size, sample.meta.input_size) == ((20, 30), (20, 30))


def test_evaluation_resizes_the_image_only(root: Path) -> None:
    sample = dataset(root, [dict(type="AlignedResize", scale=(100, 60), divisor=1)], masks=True)[0]
    assert sample is not None
    assert (sample.meta.input_size, sample.meta.original_size) == ((60, 90), (20, 30))
    assert sample.target.boxes.tolist() == [[1, 1, 5, 5]] * 2
    assert sample.target.masks.shape == (2, 20, 30)


def test_masks_are_read_where_they_are_wanted_only(root: Path) -> None:
    assert dataset(root).read(0)[1].masks is None


def test_classes_come_from_the_file_or_in_an_order_of_one_s_own(root: Path) -> None:
    data = dataset(root)
    assert data.metainfo["classes"] == ["house", "tree"]
    assert data.metainfo["category_ids"] == [3, 8]
    turned = dataset(root, classes=("tree", "house"))
    assert turned.metainfo["category_ids"] == [8, 3]
    assert turned.read(0)[1].labels.tolist() == [1, 0]


@pytest.mark.parametrize("classes", [("tree",), ("tree", "house", "car"), ("tree", "car")])
def test_other_classes_than_the_file_s_are_refused_with_both_lists(root: Path, classes: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=rf"instances\.json.*it has house, tree; the config has {', '.join(classes)}"):
        dataset(root, classes=classes)


def test_images_without_objects_and_small_ones_can_be_left_out(root: Path) -> None:
    assert [Path(dataset(root).path(i)).name for i in range(3)] == ["0.png", "1.png", "2.png"]
    data = dataset(root, filter_empty=True)
    assert len(data) == 1
    assert data.read(0)[1].image_id == 10
    assert [dataset(root, min_size=16).path(i)[-5:] for i in range(2)] == ["0.png", "2.png"]
    with pytest.raises(DataError, match=r"none of 3 images is left; filter_empty=True .* min_size=25"):
        dataset(root, filter_empty=True, min_size=25)


def test_groups_tell_wide_images(root: Path) -> None:
    assert dataset(root).groups.tolist() == [1, 0, 0]
    assert dataset(root, min_size=16).groups.tolist() == [1, 0]


def test_dropped_annotations_are_listed(root: Path) -> None:
    content = write(root)
    content["annotations"][1]["bbox"] = [0, 0, 0, 0]
    (root / "instances.json").write_text(json.dumps(content))
    ((number, image, reason),) = dataset(root).dropped
    assert (number, image) == (2, 10)
    assert "width or height of 0" in reason


@pytest.mark.parametrize(("change", "what"), [({"ann_file": "no.json"}, "no file"), ({"image_dir": "no"}, "no folder")])
def test_missing_files_are_named_with_the_help(root: Path, change: dict[str, str], what: str) -> None:
    with pytest.raises(DataError, match=rf"{what} .*no.*Get it there"):
        dataset(root, **change, download_help="Get it there")


def test_missing_coco_tells_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train2017\.zip.*val2017\.zip.*annotations_trainval2017\.zip.*--data-root"):
        Coco2017Dataset([], data_root=str(tmp_path))
    with pytest.raises(ConfigError, match="train"):
        Coco2017Dataset([], split="test")


@pytest.mark.parametrize("mode", ["sample", "all"])
def test_good_data_pass_the_checks(root: Path, mode: str) -> None:
    dataset(root, masks=True).check(mode)


def test_an_unknown_check_is_a_config_error(root: Path) -> None:
    with pytest.raises(ConfigError, match="every"):
        dataset(root).check("every")


@pytest.mark.parametrize("mode", ["sample", "all"])
def test_a_size_that_the_file_contradicts_is_found(root: Path, mode: str) -> None:
    cv2.imwrite(str(root / "photos/1.png"), np.zeros((10, 40, 3), np.uint8))
    with pytest.raises(DataError, match=r"1 problem in .*\n.*1\.png is 10 x 40, but .*instances\.json says 40 x 10"):
        dataset(root).check(mode)
    with pytest.raises(DataError, match="is 10 x 40"):
        dataset(root)[1]


def test_sizes_are_compared_upright(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 30)).save(root / "photos/0.png", exif=exif)
    dataset(root).check("sample")
    assert dataset(root)[0] is not None


def test_missing_images_are_left_to_the_quarantine_up_to_its_limit(root: Path) -> None:
    (root / "photos/1.png").unlink()
    data = dataset(root)
    with pytest.raises(DataError, match=r"1 problem in .*photos.*file_name(.|\n)*1\.png: no such file"):
        data.check("sample")
    data.quarantine = Quarantine(root / "bad.jsonl", total=3, replace=True)
    data.check("sample")
    with pytest.raises(DataError, match=r"1\.png: no such file"):
        data.check("all")


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_give_what_is_read_here(root: Path, context: str) -> None:
    data = dataset(root, masks=True)
    loader: Any = DataLoader(
        data, batch_size=3, num_workers=1, collate_fn=collate_batch, multiprocessing_context=context
    )
    (batch,) = loader
    for sent, here in zip(batch, map(data.__getitem__, range(3)), strict=True):
        assert here is not None
        for name in ("boxes", "labels", "crowd", "area", "masks", "image_id"):
            one, other = getattr(sent.target, name), getattr(here.target, name)
            assert type(one) is type(other)
            assert torch.equal(one, other)


@pytest.mark.parametrize("masks", [False, True])
def test_a_sheet_shows_the_objects_where_they_are(root: Path, monkeypatch: pytest.MonkeyPatch, masks: bool) -> None:
    drawn: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    draw_truth = DetPrediction.draw_truth

    def record(image: np.ndarray, target: Any, *rest: Any) -> np.ndarray:
        drawn.append((image.shape[:2], tuple(target.boxes.canvas_size)))
        return draw_truth(image, target, *rest)

    monkeypatch.setattr(DetPrediction, "draw_truth", staticmethod(record))
    panels = draw_sample(dataset(root, [dict(type="ShortSideResize", sizes=40)], masks=masks), SampleKey(0))
    assert list(panels) == ["0.png", "as the network sees it", "its labels"]
    assert drawn == [((180, 270), (20, 30)), ((180, 270), (40, 60))]


def test_an_index_is_pickled_in_few_bytes(root: Path) -> None:
    assert len(pickle.dumps(dataset(root, masks=True))) < 20_000


def present(name: str) -> Any:
    return pytest.mark.skipif(not (DATA / name).is_dir(), reason=f"{name} is not beside the repository")


@present("tiny_coco")
@pytest.mark.parametrize("split", ["train", "val"])
def test_masks_of_coco_are_those_of_its_file(split: str) -> None:
    data = DATASETS.build(
        dict(type="Coco2017Dataset", transforms=[], data_root=str(DATA / "tiny_coco"), split=split, masks=True)
    )
    content = json.loads((DATA / f"tiny_coco/annotations/instances_{split}2017.json").read_text())
    assert len(data) == 50
    assert len(data.classes) == 80
    assert data.metainfo["category_ids"] == sorted(c["id"] for c in content["categories"])
    assert data.dropped == ()
    for index in range(0, 50, 5):
        target = data.read_target(index)
        expected = [a for a in content["annotations"] if a["image_id"] == target.image_id]
        assert len(expected) == len(target.labels)
        for mask, entry in zip(target.masks, expected, strict=True):
            assert np.array_equal(mask, rasterise(entry["segmentation"], *data.size(index)))


@present("tiny_coco")
def test_tiny_coco_passes_the_full_check() -> None:
    Coco2017Dataset([], data_root=str(DATA / "tiny_coco"), split="val").check("all")


@present("bccd")
def test_blood_cells_have_boxes_only() -> None:
    paths = dict(ann_file="annotations/instances_val.json", image_dir="images", data_root=str(DATA / "bccd"))
    data = CocoDataset([], **paths)
    assert len(data) == 87
    assert set(data.classes) == {"RBC", "WBC", "Platelets"}
    data.check("sample")
    with pytest.raises(DataError, match="boxes only"):
        CocoDataset([], masks=True, **paths)


@present("nuclei")
def test_nuclei_have_masks() -> None:
    paths = dict(ann_file="annotations/instances_val.json", image_dir="images", data_root=str(DATA / "nuclei"))
    data = CocoDataset([], masks=True, **paths)
    assert len(data) == 80
    data.check("sample")
    target = data.read_target(0)
    assert target.masks is not None
    assert all(mask.any() for mask in target.masks)
