"""Listed volumes become crops to train on and whole volumes to evaluate, whose labels stay on the grid of the file."""

import json
import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from mmengine.config import Config
from nibabel.orientations import axcodes2ornt, ornt_transform
from torch import Tensor

from densevit.data.dataset import SampleKey
from densevit.data.quarantine import Quarantine
from densevit.engine.config import check_config
from densevit.engine.loader import build_loader
from densevit.errors import ConfigError, DataError
from densevit.registry import DATASETS
from densevit.tasks.medical.dataset import VolumeDataset

SHARED = Path(__file__).parents[2].parent / "shared/data"
CLASSES = ("background", "organ", "tumour")
RAS = dict(type="Orientationd", axcodes="RAS")
PREPARE = [RAS, dict(type="Spacingd", pixdim=(2, 2, 2)), dict(type="FgBgToIndicesd", image_key=None)]
CROP = dict(
    type="RandCropByPosNegLabeld",
    spatial_size=(4, 4, 4),
    fg_indices_key="mask_fg_indices",
    bg_indices_key="mask_bg_indices",
)
RANDOM = [CROP, dict(type="RandFlipd", prob=0.5), dict(type="RandShiftIntensityd", offsets=0.1, prob=0.5)]


def write(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None, axes: str = "RAS") -> None:
    """Write a volume that is given in RAS with axes of another orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(voxels, np.diag([1, 2, 4, 1.0]) if affine is None else affine)
    nibabel.save(image.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes))), path)


def case(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return intensities that tell the place of a voxel, and a block of each class."""
    image = np.arange(12 * 8 * 6, dtype=np.int16).reshape(12, 8, 6) + number
    mask = np.zeros((12, 8, 6), np.uint8)
    mask[2:6, 2:6, 1:4], mask[8:10, 4:8, 2:6] = 1, 2
    return image, mask


def entry(number: int) -> dict[str, Any]:
    return {"image": f"./imagesTr/{number}.nii.gz", "label": f"./labelsTr/{number}.nii.gz"}


def describe(root: Path, **changes: Any) -> None:
    described = {"labels": {str(i): name for i, name in enumerate(CLASSES)}, "training": [entry(i) for i in range(5)]}
    (root / "dataset.json").write_text(json.dumps({**described, **changes}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five volumes, one of them with other axes."""
    for number in range(5):
        for folder, voxels in zip(("imagesTr", "labelsTr"), case(number), strict=True):
            write(tmp_path / folder / f"{number}.nii.gz", voxels, axes="PIR" if number == 3 else "RAS")
    describe(tmp_path, test=["./imagesTr/0.nii.gz"])
    return tmp_path


def dataset(root: Path, prepare: Any = PREPARE, **options: Any) -> VolumeDataset:
    return VolumeDataset(prepare, data_root=str(root), **options)


def sample(data: VolumeDataset, *key: int) -> Any:
    found = data[SampleKey(*key)]
    assert found is not None
    return found


def test_in_training_a_sample_is_a_crop_with_labels_on_its_grid(root: Path) -> None:
    data: VolumeDataset = DATASETS.build(
        dict(type="VolumeDataset", data_root=str(root), prepare=[RAS], transforms=[dict(CROP, spatial_size=(4, 5, 6))])
    )
    for index in range(5):
        found = sample(data, index)
        assert type(found.image) is type(found.target.mask) is Tensor
        assert (found.image.dtype, found.target.mask.dtype) == (torch.float32, torch.uint8)
        assert (found.image.shape, found.target.mask.shape) == ((1, 4, 5, 6), (4, 5, 6))
        places = (found.image[0] - index).long()
        assert torch.equal(found.target.mask, torch.from_numpy(case(index)[1]).flatten()[places])
        assert found.target.spacing.tolist() == [1, 2, 4]
        assert found.meta.path == data.path(index)
        assert (found.meta.input_size, found.meta.to_input) == ((4, 5, 6), None)
        assert len(found.image.untyped_storage()) == 4 * found.image.numel(), "a crop does not drag its volume along"


def test_in_evaluation_it_is_the_whole_volume_with_labels_on_the_grid_of_the_file(root: Path) -> None:
    found = sample(dataset(root), 3)
    raw = nibabel.load(root / "labelsTr/3.nii.gz")
    assert found.image.shape == (1, 6, 8, 11)
    assert np.array_equal(found.target.mask, np.asarray(raw.dataobj))
    assert found.target.spacing.tolist() == [2, 4, 1]
    assert (found.meta.original_size, found.meta.input_size) == (raw.shape, (6, 8, 11))
    assert type(found.image) is Tensor
    assert found.image.is_contiguous()


def test_the_map_to_the_input_finds_each_voxel(root: Path) -> None:
    bright = dict(type="CropForegroundd", select_fn=lambda image: image > 300)
    found = sample(dataset(root, [RAS, bright]), 3)
    padded = sample(dataset(root, [RAS, dict(type="SpatialPadd", spatial_size=(20, 8, 9))]), 3)
    raw, _, _ = dataset(root).read(3)
    assert found.image.shape == (1, 6, 8, 6)
    for result in (found, padded):
        places = np.argwhere(np.ones(result.image.shape[1:]))
        from_input = np.linalg.inv(result.meta.to_input.numpy())
        there = np.rint(np.c_[places, np.ones(len(places))] @ from_input.T).astype(int)[:, :3]
        inside = ((there >= 0) & (there < raw.shape[1:])).all(axis=1)
        assert inside.sum() == (6 * 8 * 6 if result is found else raw.numel())
        values = result.image[0].numpy()[tuple(places[inside].T)]
        assert np.array_equal(values, raw[0].numpy()[tuple(there[inside].T)])


def test_the_augmentation_is_a_function_of_the_key(root: Path) -> None:
    data, again = dataset(root, transforms=RANDOM), dataset(root, transforms=RANDOM)
    seen = [sample(data, 2, epoch, repeat) for epoch, repeat in ((0, 0), (0, 1), (1, 0))]
    sample(again, 4)
    assert torch.equal(sample(again, 2, 1, 0).image, seen[2].image)
    assert torch.equal(sample(again, 2, 0, 1).target.mask, seen[1].target.mask)
    assert not torch.equal(seen[0].image, seen[1].image)
    assert not torch.equal(seen[0].image, seen[2].image)


@pytest.mark.parametrize("transforms", [RANDOM, []], ids=["training", "evaluation"])
def test_a_cache_changes_nothing_and_saves_the_reading(
    root: Path, transforms: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = dataset(root, transforms=transforms)
    expected = [sample(plain, index) for index in range(5)]
    for _ in range(2):
        data = dataset(root, transforms=transforms, cache=str(root / "cache"))
        for index, one in enumerate(expected):
            other = sample(data, index)
            assert torch.equal(one.image, other.image)
            assert torch.equal(one.target.mask, other.target.mask)
            assert torch.equal(one.target.spacing, other.target.spacing)
            assert one.meta == other.meta
            assert (one.meta.to_input is None) == (other.meta.to_input is None)
        monkeypatch.setattr(VolumeDataset, "read", lambda *args: pytest.fail("read again"))


@pytest.mark.parametrize("cache", [None, "cache"])
def test_crops_are_centred_on_classes_by_prepared_lists_of_their_voxels(
    root: Path, cache: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = "monai.transforms.croppad.array.map_classes_to_indices"
    monkeypatch.setattr(again, lambda *args, **kwargs: pytest.fail("searched the mask again"))
    data: VolumeDataset = DATASETS.build(
        dict(
            type="VolumeDataset",
            data_root=str(root),
            prepare=[RAS, dict(type="ClassesToIndicesd", num_classes=3)],
            transforms=[
                dict(
                    type="RandCropByLabelClassesd",
                    spatial_size=2,
                    num_classes=3,
                    ratios=(0, 1, 0),
                    indices_key="mask_cls_indices",
                )
            ],
            cache=cache and str(root / cache),
        )
    )
    for repeat in range(5):
        assert (sample(data, 0, 0, repeat).target.mask == 1).any()


def test_training_and_evaluation_have_entries_of_their_own(root: Path) -> None:
    cache = str(root / "cache")
    sample(dataset(root, transforms=RANDOM, cache=cache), 0)
    assert sample(dataset(root, cache=cache), 0).target.mask.shape == (12, 8, 6)


def test_several_files_are_channels(root: Path) -> None:
    describe(root, training=[{"image": ["imagesTr/0.nii.gz", "imagesTr/1.nii.gz"], "label": "labelsTr/0.nii.gz"}])
    found = sample(dataset(root, transforms=RANDOM), 0)
    assert found.image.shape == (2, 4, 4, 4)
    assert found.meta.path.endswith("imagesTr/0.nii.gz")
    describe(root, training=[{"image": ["imagesTr/0.nii.gz", "imagesTr/3.nii.gz"], "label": "labelsTr/0.nii.gz"}])
    with pytest.raises(DataError, match=r"imagesTr/3\.nii\.gz is 8 x 6 x 12, but .*imagesTr/0"):
        dataset(root).check("sample")


def test_a_section_without_labels_has_no_targets(root: Path) -> None:
    data = dataset(root, section="test")
    data.check("all")
    assert sample(data, 0).target is None
    with pytest.raises(DataError, match=r"test gives .*0\.nii\.gz no label to train on"):
        dataset(root, section="test", transforms=RANDOM)


def test_reader_and_preparation_do_as_the_dataset_does(root: Path) -> None:
    data = dataset(root)
    image = VolumeDataset.reader({})(data.path(3))
    prepared = VolumeDataset.preparation({"prepare": PREPARE})(image)
    found = sample(data, 3)
    assert torch.equal(prepared.as_tensor(), found.image)
    assert torch.equal(torch.linalg.inv(prepared.affine) @ image.affine, found.meta.to_input)
    assert VolumeDataset.picture(image).ndim == VolumeDataset.picture(found.image).ndim == 3


def test_batches_of_crops_come_from_workers(root: Path) -> None:
    cfg = dict(type="VolumeDataset", data_root=str(root), prepare=PREPARE, transforms=RANDOM, cache=str(root / "cache"))
    loader = build_loader(
        dict(dataset=cfg, batch_size=4, num_workers=1, repeats=2), seed=0, work_dir=root, training=True
    )
    batch = next(iter(loader))
    assert [s.image.shape for s in batch] == [(1, 4, 4, 4)] * 4
    assert batch[0].meta.path == batch[1].meta.path != batch[2].meta.path
    assert not torch.equal(batch[0].image, batch[1].image)


def test_a_volume_smaller_than_the_crop_is_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"imagesTr/1\.nii\.gz: .*crop.*larger"):
        sample(dataset(root, transforms=[dict(CROP, spatial_size=(32, 32, 32))]), 1)


def test_unreadable_volumes_are_left_to_the_quarantine(root: Path) -> None:
    path = root / "imagesTr/2.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    data = dataset(root, cache=str(root / "cache"))
    with pytest.raises(DataError, match=r"2\.nii\.gz: damaged"):
        data[2]
    data.quarantine = Quarantine(root / "bad.jsonl", total=5, replace=False)
    assert [data[i] is None for i in range(5)] == [False, False, True, False, False]


@pytest.mark.parametrize("mode", ["sample", "all"])
def test_good_data_pass_the_checks(root: Path, mode: str) -> None:
    dataset(root).check(mode)


@pytest.mark.parametrize("mode", ["sample", "all"])
def test_labels_on_another_grid_are_found_before_a_run(root: Path, mode: str) -> None:
    write(root / "labelsTr/1.nii.gz", case(1)[1][:-1])
    write(root / "labelsTr/2.nii.gz", case(2)[1], np.diag([-1, 2, 4, 1.0]))
    with pytest.raises(DataError, match="2 problems") as caught:
        dataset(root).check(mode)
    assert re.search(r"labelsTr/1\.nii\.gz is 11 x 8 x 6, but .*imagesTr/1", str(caught.value))
    assert re.search(r"labelsTr/2\.nii\.gz lies 22 voxels off .*imagesTr/2", str(caught.value))


@pytest.mark.parametrize("mode", ["sample", "all"])
def test_labels_that_are_no_class_are_named(root: Path, mode: str) -> None:
    write(root / "labelsTr/4.nii.gz", case(4)[1] * 3)
    with pytest.raises(
        DataError,
        match=r"labelsTr/4\.nii\.gz: ids 3, 6 found, but the classes are 0\.\.2 \(background, organ, tumour\)",
    ):
        dataset(root).check(mode)


def test_folders_of_dicom_are_told_by_the_check(root: Path) -> None:
    (root / "series").mkdir()
    describe(root, training=[{"image": "series", "label": "labelsTr/0.nii.gz"}])
    with pytest.raises(DataError, match=r"series: a folder, no volume; convert .*dcm2niix"):
        dataset(root).check("sample")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(prepare=[RAS, CROP]), "prepare is done once"),
        (dict(prepare=[dict(type="Orientatoind")]), "Did you mean 'Orientationd'"),
        (dict(held_out=True), "held_out wants a fold"),
        (dict(fold=5), "fold 5 is none of 0, 1, 2, 3, 4"),
        (
            dict(classes=("background", "tumour", "organ")),
            "background, tumour, organ in the config, but background, organ",
        ),
    ],
)
def test_contradicting_arguments_are_config_errors(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataset(root, **options)


def test_both_pipelines_of_a_config_are_checked_before_data_are_read() -> None:
    base = dict(type="VolumeDataset", prepare=[RAS], transforms=RANDOM)
    for change in (dict(prepare=[dict(RAS, axcode="RAS")]), dict(transforms=[dict(CROP, spatial_sizes=1)])):
        with pytest.raises(ConfigError, match=r"Did you mean '(axcodes|spatial_size)'"):
            check_config(Config(dict(train_dataloader=dict(batch_size=1, dataset={**base, **change}))))


def test_multi_scale_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="multi_scale is for images"):
        sample(dataset(root, transforms=RANDOM), 0, 0, 0, 32)


@pytest.mark.skipif(not (SHARED / "hippocampus").is_dir(), reason="the hippocampus data are not beside the repository")
def test_hippocampus_passes_the_check() -> None:
    data = dataset(SHARED / "hippocampus", [RAS], section="validation")
    data.check("sample")
    assert (len(data), data.classes) == (60, ("background", "anterior", "posterior"))
    assert sample(data, 0).target.mask.unique().tolist() == [0, 1, 2]
