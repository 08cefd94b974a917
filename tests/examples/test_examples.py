"""The files in examples/ do what the pages that show them say."""

import csv
import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.tv_tensors import Image, Mask

from densevit.api import create_model
from densevit.data.class_prediction import ClassPrediction
from densevit.data.demo import make_classification, make_segmentation
from densevit.engine.config import load_config
from densevit.errors import DataError
from densevit.export.graph import Graph
from densevit.features import expected_shape
from densevit.registry import BACKBONES, DATASETS, METRICS, MODELS, TRANSFORMS
from densevit.structures import ClassTarget, Meta, Sample, SegTarget

ROOT = Path(__file__).parents[2]
SHOWN = sorted(path for path in (ROOT / "examples").glob("*.py") if path.name != "run_onnx.py")
CONFIGS = [path.name for path in SHOWN if path.stem.endswith("_config")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory with the examples, whose modules can be imported."""
    for path in SHOWN:
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write_lists(root: Path) -> None:
    """List the pictures of each split in a CSV file."""
    for split in ("train", "val"):
        with (root / f"{split}.csv").open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["file", "label"])
            lines.writerows([p.relative_to(root), p.parent.name] for p in sorted(root.glob(f"{split}/*/*.jpg")))


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.name)
def test_each_example_is_shown_in_full_by_a_page(path: Path) -> None:
    block = f"```python\n{path.read_text()}```\n"
    assert path.read_text().startswith(f"# {path.name}\n")
    assert any(block in page.read_text() for page in (ROOT / "docs").rglob("*.md"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_each_config_of_the_examples_trains(name: str, folder: Path, call: Callable[..., int]) -> None:
    make_segmentation(folder / "data/demo/segmentation", train=4, val=2)
    make_classification(folder / "data/demo/classification", train=10, val=5)
    write_lists(folder / "data/demo/classification")
    short = ["train_dataloader.batch_size=4", "train_dataloader.num_workers=0", "train_cfg.max_iters=3"]
    assert call("train", name, "--cfg-options", *short, "train_cfg.val_interval=3") == 0
    run = folder / "work_dirs" / Path(name).stem
    assert (run / "iter_3.pth").is_file()
    wanted = {"csv_config.py": ("top1", "ECE")}.get(name, ("mIoU",))
    assert all(word in (run / "results.md").read_text() for word in wanted)


def test_the_backbone_keeps_what_its_specs_promise_at_any_size(folder: Path) -> None:
    importlib.import_module("residual_pyramid")
    net = BACKBONES.build({"type": "ResidualPyramid", "width": 8})
    maps = net(torch.rand(2, 3, 50, 71)).maps
    assert [tuple(x.shape) for x in maps] == [expected_shape(spec, 2, (50, 71)) for spec in net.specs]
    sum(x.sum() for x in maps).backward()
    names = [name for name, parameter in net.named_parameters() if parameter.grad is not None]
    assert len(names) == len(list(net.parameters()))
    groups = net.layer_groups()
    assert all(sum(name.startswith(group) for group in groups) == 1 for name in names)


@pytest.mark.parametrize("task", ["classification", "segmentation", "detection", "instance_segmentation"])
def test_the_backbone_serves_each_task_of_images(task: str, folder: Path) -> None:
    importlib.import_module("residual_pyramid")
    model = create_model("ResidualPyramid", task=task, num_classes=3, width=8)
    model.train()(torch.rand(2, 3, 64, 64))


def test_the_head_learns_and_gives_masks_of_the_size_of_the_files(folder: Path) -> None:
    importlib.import_module("sum_head")
    torch.manual_seed(0)
    backbone = {"type": "MiT", "dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
    head = {"type": "SumHead", "num_classes": 2, "channels": 16}
    model = MODELS.build({"type": "DenseModel", "backbone": backbone, "head": head, "precision": "fp32"})
    image = torch.zeros(3, 60, 64, dtype=torch.uint8)
    image[:, :, 32:] = 255
    mask = torch.zeros(60, 64, dtype=torch.uint8)
    mask[:, 32:], mask[:4] = 1, 255
    sample = Sample(Image(image), SegTarget(Mask(mask)), Meta("a.jpg", (60, 64), (60, 64)))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        terms = model(**model.data_preprocessor([sample] * 2, True), mode="loss")
        loss = terms["loss_entropy"] + terms["loss_dice"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    (found,), terms = model.eval().val_step([sample])
    assert tuple(found.mask.shape) == (60, 64)
    assert (found.mask[4:] == mask[4:]).float().mean() > 0.9
    assert Graph(model)(torch.zeros(1, 3, 64, 64))["logits"].shape == (1, 2, 16, 16)


def test_the_dataset_reads_its_list_and_names_a_line_that_is_wrong(folder: Path) -> None:
    importlib.import_module("csv_dataset")
    make_classification(folder, train=10, val=5)
    write_lists(folder)
    options: dict[str, Any] = {"type": "CsvDataset", "classes": ("car", "ball"), "transforms": [], "ann_file": "t.csv"}
    Path("t.csv").write_text("file,label\ntrain/car/00003.jpg,car\ntrain/ball/00004.jpg,ball\n")
    dataset = DATASETS.build(options)
    dataset.check("all")
    sample = dataset[1]
    assert sample.meta.path == "train/ball/00004.jpg"
    assert sample.target.label == 1
    Path("t.csv").write_text("file,label\ntrain/car/00003.jpg,cat\n")
    with pytest.raises(DataError, match=r"t\.csv, line 2"):
        DATASETS.build(options)


def test_the_transform_covers_a_square_that_the_seed_decides(folder: Path) -> None:
    importlib.import_module("grey_patch")
    patch = TRANSFORMS.build({"type": "GreyPatch", "side": 0.5})
    image = Image(torch.zeros(3, 20, 30, dtype=torch.uint8))
    seen = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        seen.append(patch(image, {"label": torch.tensor(2)})[0])
    assert all((x == 128).sum() == 3 * 10 * 10 for x in seen)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert image.sum() == 0


def test_the_metric_is_the_distance_between_sure_and_right(folder: Path) -> None:
    importlib.import_module("calibration_error")
    metric = METRICS.build({"type": "CalibrationError"})
    truth, meta = ClassTarget(torch.tensor(0)), Meta("a.jpg", (8, 8), (8, 8))
    wrong = ClassTarget(torch.tensor(1))
    samples = [Sample(torch.zeros(3, 8, 8), target, meta) for target in (truth, truth, truth, wrong)]
    metric.process(samples, [ClassPrediction(torch.tensor([0.95, 0.05]))] * 4)
    assert metric.evaluate(4)["classification/ECE"] == pytest.approx(0.2)


def test_configs_name_the_examples(folder: Path) -> None:
    for name in CONFIGS:
        assert load_config(name).custom_imports.imports
