"""The tools, called as a user calls them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture
def path(config: Config, tmp_path: Path) -> Path:
    config.pop("work_dir")
    config.train_cfg.max_iters, config.optim_wrapper.optimizer.lr = 30, 3e-3
    config.train_cfg.val_interval = 15
    config.default_hooks.checkpoint.interval = 15
    config.dump(tmp_path / "tiny.py")
    return tmp_path / "tiny.py"


def test_a_user_s_afternoon(call, path: Path, scenes: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    """Train, resume, test with pictures, score the masks again, predict new images."""
    work, images = tmp_path / "work", sorted((scenes / "images/val").glob("*.jpg"))
    assert call("train", path, "--work-dir", work, "--seed", 1, "--no-amp") == 0
    assert call("train", path, "--work-dir", work, "--seed", 1, "--no-amp", "--resume") == 0
    checkpoint = work / "iter_30.pth"

    assert (
        call(
            "test",
            path,
            checkpoint,
            "--work-dir",
            tmp_path / "t",
            "--out",
            tmp_path / "m",
            "--show-dir",
            tmp_path / "p",
        )
        == 0
    )
    scores = json.loads(next((tmp_path / "t").glob("*/*.json")).read_text())
    assert scores["mIoU"] > 0.3
    for image in images:
        assert Image.open(tmp_path / "m" / f"{image.stem}.png").size == (80, 64)
        assert Image.open(tmp_path / "p" / f"{image.stem}.jpg").size[0] >= 80

    capsys.readouterr()
    assert call("score", path, tmp_path / "m") == 0
    assert f"{scores['mIoU']:.4f}" in capsys.readouterr().out

    for option in ("--tta", "--slide"):
        assert call("test", path, checkpoint, "--work-dir", tmp_path / option, option) == 0

    broken = tmp_path / "new" / "broken.jpg"
    broken.parent.mkdir()
    broken.write_bytes(images[0].read_bytes()[:500])
    assert call("predict", path, checkpoint, *images[:2], broken, "--out", tmp_path / "out", "--batch-size", 2) == 1
    entries = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [Path(e["input"]).name for e in entries] == [images[0].name, images[1].name, "broken.jpg"]
    assert "broken.jpg" in entries[2]["error"]
    same = np.asarray(Image.open(tmp_path / "m" / f"{images[0].stem}.png"))
    assert np.array_equal(np.asarray(Image.open(entries[0]["output"])), same)
    assert Path(entries[0]["overlay"]).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["configs/segformer_b0_ade20k.py"], "ADEChallengeData2016.zip"),
        (["configs/segformer_b0_ade20k.py", "--work-dir", "/proc/none"], "--work-dir"),
        (["configs/segformer_b9_ade20k.py"], "Did you mean 'segformer_b"),
        (["configs/segformer_b0_ade20k.py", "--cfg-options", "model.backbone.drop=1"], "Did you mean 'drop_path'"),
    ],
)
def test_an_error_is_one_message_with_the_way_out(  # type: ignore[no-untyped-def]
    call, capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    config = TOOLS.parent / arguments[0]
    monkeypatch.chdir(tmp_path)
    assert call("train", config, *arguments[1:]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err


def test_a_missing_checkpoint_is_named(call, capsys, path: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert call("test", path, tmp_path / "none.pth", "--work-dir", tmp_path / "t") == 2
    assert "none.pth does not exist" in capsys.readouterr().err


def test_nothing_to_predict_is_an_error(call, capsys, path: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert call("predict", path, tmp_path / "none.pth", tmp_path / "nothing*.jpg") == 2
    assert "nothing*.jpg" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["gray", "rgba", "sixteen"])
def test_images_of_other_kinds_are_read_or_refused(call, path: Path, scenes: Path, tmp_path: Path, kind: str) -> None:  # type: ignore[no-untyped-def]
    from densevit.engine.config import load_config
    from densevit.registry import MODELS

    cfg = load_config(path)
    torch.save({"state_dict": MODELS.build(cfg.model).state_dict()}, tmp_path / "random.pth")
    image = np.random.default_rng(0).integers(0, 255, (64, 80, 4), dtype=np.uint8)
    picture = {"gray": image[..., 0], "rgba": image, "sixteen": image[..., 0].astype(np.uint16) * 256}[kind]
    cv2.imwrite(str(tmp_path / "x.png"), picture)
    code = call("predict", path, tmp_path / "random.pth", tmp_path / "x.png", "--out", tmp_path / "out")
    entry = json.loads((tmp_path / "out" / "predictions.json").read_text())[0]
    assert (code == 0) == (kind == "gray")
    assert ("error" in entry) == (kind != "gray")
