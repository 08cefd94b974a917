"""tools/export.py, and the script that runs what it wrote where neither this package nor PyTorch is."""

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from densevit.registry import MODELS

Call = Callable[..., int]
RUNNER = Path(__file__).parents[1] / "examples" / "run_onnx.py"
TINY = {"type": "MiT", "dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
ALONE = "import runpy, sys; sys.modules['torch'] = sys.modules['densevit'] = None; sys.argv = sys.argv[1:]"


@pytest.fixture
def path(config: Config, tmp_path: Path) -> Path:
    """Return a config of a small SegFormer; random.pth beside it has weights."""
    return with_model(config, tmp_path, config.model)


def with_model(config: Config, folder: Path, model: dict[str, Any]) -> Path:
    config.pop("work_dir", None)
    config.model = model
    torch.manual_seed(0)
    net = MODELS.build(model)
    for name, value in net.head.named_parameters():
        if name.startswith(("linear_pred", "fc.", "retina_", "rpn_cls", "rpn_reg")):
            torch.nn.init.normal_(value, std=0.3)
    torch.save({"state_dict": net.state_dict()}, folder / "random.pth")
    config.dump(folder / "tiny.py")
    return folder / "tiny.py"


def run_alone(*arguments: object) -> str:
    """Run the example where importing torch or densevit fails, and return what it prints."""
    script = f"{ALONE}; runpy.run_path({str(RUNNER)!r}, run_name='__main__')"
    command = [sys.executable, "-c", script, RUNNER.name, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_an_exported_segmenter_runs_alone(call: Call, path: Path, scenes: Path, tmp_path: Path, capsys: Any) -> None:
    out, image = tmp_path / "export" / "model.onnx", sorted((scenes / "images/val").glob("*.jpg"))[0]
    assert call("export", path, tmp_path / "random.pth", "--out", out, "--size", 64, 96) == 0
    printed = capsys.readouterr().out
    assert "image batch x 3 x height x width -> logits" in printed
    assert "2 x 3 x 64 x 96" in printed
    assert "3 x 3 x 96 x 128" in printed
    about = json.loads(out.with_suffix(".json").read_text())
    assert about["classes"] == ["ground", "square", "disc"]
    assert about["preparation"]["transforms"][0]["type"] == "AlignedResize"
    assert str(tmp_path) not in out.read_bytes().decode("latin1"), "no path of this machine"
    assert str(tmp_path) not in json.dumps(about)

    assert "%" in run_alone(out, image, "--out", tmp_path / "alone")
    assert call("predict", path, tmp_path / "random.pth", image, "--out", tmp_path / "ours", "--device", "cpu") == 0
    mask = cv2.imread(str(tmp_path / "alone" / f"{image.stem}.png"), cv2.IMREAD_UNCHANGED)
    expected = cv2.imread(str(tmp_path / "ours/outputs" / f"{image.stem}.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (64, 80)
    assert len(np.unique(expected)) > 1
    assert (mask == expected).mean() > 0.98
    assert (tmp_path / "alone" / f"{image.stem}_picture.jpg").is_file()


@pytest.mark.slow
def test_an_exported_classifier_and_a_detector_run_alone(
    call: Call, config: Config, scenes: Path, tmp_path: Path
) -> None:
    image, out = sorted((scenes / "images/val").glob("*.jpg"))[0], tmp_path / "model.onnx"
    dataset = config.test_dataloader.dataset
    dataset.transforms = [{"type": "Resize", "size": 70}, {"type": "CenterCrop", "size": 64}]
    model = {"type": "DenseModel", "backbone": TINY, "head": {"type": "ClassificationHead", "num_classes": 3}}
    path = with_model(config, tmp_path, model)
    assert call("export", path, tmp_path / "random.pth", "--out", out, "--static") == 0
    assert "disc" in run_alone(out, image)

    dataset.transforms = [{"type": "AlignedResize", "scale": (80, 64), "divisor": 1}]
    neck = {"type": "FPN", "out_channels": 8, "start_level": 1, "num_outs": 3}
    head = {"type": "RetinaHead", "num_classes": 3, "channels": 8, "num_convs": 1, "max_per_level": 50}
    path = with_model(config, tmp_path, {"type": "DenseModel", "backbone": TINY, "neck": neck, "head": head})
    size = ("--size", 64, 80, "--static")
    assert call("export", path, tmp_path / "random.pth", "--out", out, *size) == 0
    printed = run_alone(out, image, "--out", tmp_path / "alone", "--threshold", 0.1)
    assert ("square 0." in printed) or ("disc 0." in printed) or ("ground 0." in printed)
    assert cv2.imread(str(tmp_path / "alone" / f"{image.stem}_picture.jpg")).shape == (64, 80, 3)


def test_two_images_of_one_name_are_not_written_over_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(RUNNER), "model.onnx", "a/1.jpg", "b/1.png"])
    with pytest.raises(SystemExit, match="share a name"):
        runpy.run_path(str(RUNNER), run_name="__main__")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "model.bin"], "ends with neither .onnx nor .pt2: give --format"),
        (["--out", "model.pt2", "--size", "64"], "--size is HEIGHT WIDTH"),
        (["--out", "model.pt2", "--size", "64", "70"], "multiples of 32"),
        (["--out", "/proc/none/model.pt2", "--size", "64", "64", "--static"], "Choose another --out"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    call: Call, path: Path, tmp_path: Path, capsys: Any, arguments: list[str], message: str
) -> None:
    assert call("export", path, tmp_path / "random.pth", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_onnx_that_is_not_installed_is_named_with_the_way_out(
    call: Call, path: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert call("export", path, tmp_path / "random.pth", "--out", tmp_path / "m.onnx") == 2
    assert 'pip install "densevit[export]"' in capsys.readouterr().err


def test_a_file_that_gives_something_else_is_removed(
    call: Call, path: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model.pt2"
    monkeypatch.setattr("densevit.export.exporting.load", lambda path, form: lambda x: {"logits": np.zeros(3)})
    assert call("export", path, tmp_path / "random.pth", "--out", out, "--size", 64, 64, "--static") == 2
    assert "differs from the model" in capsys.readouterr().err
    assert not out.exists()


def test_the_config_of_a_compiled_model_is_exported_too(
    call: Call, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *arguments, **options: pytest.fail("was compiled"))
    options = ("--size", 64, 64, "--static", "--cfg-options", "model.compile=True")
    assert call("export", path, tmp_path / "random.pth", "--out", tmp_path / "model.pt2", *options) == 0


def test_a_file_that_does_not_run_is_removed(
    call: Call, path: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(x: torch.Tensor) -> None:
        raise RuntimeError("integer division by zero")

    out = tmp_path / "model.pt2"
    monkeypatch.setattr("densevit.export.exporting.load", lambda path, form: fail)
    assert call("export", path, tmp_path / "random.pth", "--out", out, "--size", 64, 64, "--static") == 2
    assert "does not run on inputs (1, 3, 64, 64) (integer division by zero)" in capsys.readouterr().err
    assert not out.exists()
