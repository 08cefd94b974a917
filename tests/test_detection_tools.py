"""The tools on detection, called as a user calls them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

import densevit
from densevit.data.demo import DETECTION_CLASSES, make_detection
from densevit.registry import MODELS


@pytest.fixture
def data(tmp_path: Path) -> Path:
    make_detection(tmp_path / "data", train=2, val=4)
    return tmp_path / "data"


@pytest.fixture
def path(data: Path, tmp_path: Path) -> Path:
    """Return a config that tests a very small detector."""
    dataset = {
        "type": "CocoDataset",
        "data_root": str(data),
        "ann_file": "annotations/instances_val.json",
        "image_dir": "val",
        "masks": True,
        "transforms": [{"type": "AlignedResize", "scale": (80, 64), "divisor": 1}],
    }
    model = {
        "type": "DenseModel",
        "backbone": {"type": "MiT", "dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)},
        "neck": {"type": "FPN", "out_channels": 8, "start_level": 1, "num_outs": 3},
        "head": {"type": "RetinaHead", "num_classes": len(DETECTION_CLASSES), "channels": 8, "score_threshold": 0.0},
        "precision": "fp32",
    }
    config = Config(
        {
            "default_scope": "densevit",
            "model": model,
            "test_dataloader": {"batch_size": 2, "num_workers": 0, "dataset": dataset},
            "test_cfg": {},
            "test_evaluator": {"type": "CocoMetric"},
            "custom_hooks": [{"type": "ReportHook", "num_samples": 1}],
        }
    )
    config.dump(tmp_path / "tiny.py")
    return tmp_path / "tiny.py"


def truth_as_results(data: Path) -> list[dict[str, Any]]:
    """What a perfect detector would write."""
    annotations = json.loads((data / "annotations/instances_val.json").read_text())["annotations"]
    names = ("image_id", "category_id", "bbox")
    return [{**{name: a[name] for name in names}, "score": 1.0} for a in annotations if not a["iscrowd"]]


def test_results_of_any_tool_are_scored_without_a_model(  # type: ignore[no-untyped-def]
    call, capsys: pytest.CaptureFixture[str], path: Path, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "found.json").write_text(json.dumps(truth_as_results(data)))
    for image in (data / "val").iterdir():
        image.write_bytes(b"not needed")
    assert call("test", path, "--from-json", tmp_path / "found.json", "--work-dir", tmp_path / "work") == 0
    printed = capsys.readouterr().out
    assert "bbox_AP    1.0000" in printed
    assert "segm" not in printed


def test_wrong_results_are_one_message(  # type: ignore[no-untyped-def]
    call, capsys: pytest.CaptureFixture[str], path: Path, data: Path, tmp_path: Path
) -> None:
    results = truth_as_results(data)
    results[1]["category_id"] = 77
    (tmp_path / "found.json").write_text(json.dumps(results))
    assert call("test", path, "--from-json", tmp_path / "found.json", "--work-dir", tmp_path / "work") == 2
    assert "found.json: entry 1 has the category_id 77" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either a CHECKPOINT or --from-json"),
        (["a.pth", "--from-json", "b.json"], "either a CHECKPOINT or --from-json"),
        (["--from-json", "b.json", "--tta"], "--tta and --slide need a model"),
        (["--from-json", "none.json"], "none.json: no file of COCO results"),
    ],
)
def test_a_checkpoint_or_results_are_needed(  # type: ignore[no-untyped-def]
    call, capsys: pytest.CaptureFixture[str], path: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert call("test", path, *arguments, "--work-dir", tmp_path / "work") == 2
    assert message in capsys.readouterr().err


def test_results_are_for_metrics_that_read_them(  # type: ignore[no-untyped-def]
    call, capsys: pytest.CaptureFixture[str], path: Path, tmp_path: Path
) -> None:
    option = "test_evaluator.type=MeanIoU"
    assert call("test", path, "--from-json", "b.json", "--work-dir", tmp_path, "--cfg-options", option) == 2
    assert "MeanIoU reads no COCO results" in capsys.readouterr().err


def test_objects_in_an_array_are_those_of_its_file(path: Path, data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(MODELS.build(Config.fromfile(path).model).state_dict(), tmp_path / "random.pth")
    predictor, file = densevit.load(tmp_path / "random.pth", path), next((data / "val").iterdir())
    (named, found) = predictor([file, np.array(Image.open(file))], batch_size=2)
    assert len(named.prediction.boxes) > 0
    assert torch.equal(found.prediction.boxes, named.prediction.boxes)
    assert json.loads(json.dumps(found.to_dict()))["objects"] == named.to_dict()["objects"]
    assert np.array_equal(found.plot(), named.plot())
    assert [path.name for path in found.save(tmp_path / "out").values()] == ["input_1.jpg", "input_1.json"]


def test_what_a_test_writes_scores_the_same_in_both_ways(  # type: ignore[no-untyped-def]
    call, capsys: pytest.CaptureFixture[str], path: Path, tmp_path: Path, parse_page
) -> None:
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(path).model)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "random.pth")
    out = tmp_path / "out"
    assert call("test", path, tmp_path / "random.pth", "--work-dir", tmp_path / "work", "--out", out) == 0
    scores = json.loads(next((tmp_path / "work").glob("*/*.json")).read_text())
    assert len(list(out.glob("*.json"))) == 5
    page = parse_page((tmp_path / "work" / "report.html").read_text())
    assert "Worst samples, by F1" in page.text
    assert len(page.alternatives) == 2 + 1 + 1 + 1  # confusion and curves of precision, samples
    assert json.loads((out / "coco_detections.json").read_text())
    for tool, arguments in (("score", [out]), ("test", ["--from-json", out / "coco_detections.json"])):
        capsys.readouterr()
        assert call(tool, path, *arguments) == 0
        assert f"bbox_AP50  {scores['bbox_AP50']:.4f}" in capsys.readouterr().out
