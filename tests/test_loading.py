"""Predictions from Python: a run, a checkpoint or weights become a predictor with its preprocessing."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

import densevit
from densevit.engine.checkpoint import save_checkpoint
from densevit.engine.manifest import read_manifest
from densevit.engine.plain_config import from_plain, to_plain
from densevit.engine.runner import Runner
from densevit.errors import CheckpointError, ConfigError, DataError
from densevit.publishing import publish
from densevit.registry import MODELS
from densevit.tasks.segmentation import SegPrediction

CLASSES = ["ground", "square", "disc"]


def save(cfg: Config, path: Path, step: int = 1, carried: Any = None) -> Path:
    """Write a checkpoint that carries its config, or something else, and random weights that depend on ``step``."""
    torch.manual_seed(step)
    model = MODELS.build(cfg.model)
    torch.nn.init.normal_(model.head.linear_pred.weight, std=5.0)
    named = {"classes": CLASSES, "palette": [[0, 0, 0], [255, 0, 0], [0, 255, 0]]}
    meta = {"iter": step, "epoch": 0, "config": carried or to_plain(cfg), "dataset": named}
    path.parent.mkdir(exist_ok=True)
    save_checkpoint({"meta": meta, "state_dict": model.state_dict()}, path)
    return path


@pytest.fixture
def run(config: Config, tmp_path: Path) -> Path:
    """Return the folder of a run with a best checkpoint and a newer one."""
    save(config, tmp_path / "run/best_mIoU.pth", 2)
    save(config, tmp_path / "run/iter_4.pth", 4)
    return tmp_path / "run"


@pytest.fixture
def images(scenes: Path) -> list[Path]:
    return sorted((scenes / "images/val").glob("*.jpg"))


def masks_of(results: list[Any]) -> list[torch.Tensor]:
    return [result.prediction.mask for result in results]


def test_a_run_that_was_trained_is_predicted_with_by_its_folder(
    config: Config, images: list[Path], capsys: Any
) -> None:
    config.train_cfg.max_iters, config.train_cfg.val_interval = 2, 2
    Runner.from_cfg(config).train()
    work = Path(config.work_dir)
    meta = torch.load(work / "iter_2.pth", weights_only=True)["meta"]
    assert json.loads(json.dumps(meta["config"])) == meta["config"]
    assert meta["config"]["model"]["backbone"]["dims"] == [8, 16, 16, 24]
    capsys.readouterr()
    result = densevit.load(work)(images[0])
    assert f"loaded {work / 'best_mIoU.pth'}: step 2, score 0." in capsys.readouterr().out
    assert isinstance(result.prediction, SegPrediction)
    assert result.classes == CLASSES
    named = densevit.load(work / "best_mIoU.pth", config=config)(images[0])
    assert torch.equal(result.prediction.mask, named.prediction.mask)


def test_of_a_run_the_best_intact_checkpoint_is_taken_then_the_newest(
    run: Path, images: list[Path], capsys: Any
) -> None:
    expected = {name: densevit.load(run / name)(images) for name in ("best_mIoU.pth", "iter_4.pth")}
    assert any(not torch.equal(a, b) for a, b in zip(*map(masks_of, expected.values()), strict=True))
    for name in expected:
        capsys.readouterr()
        assert all(map(torch.equal, masks_of(densevit.load(run)(images)), masks_of(expected[name])))
        printed = capsys.readouterr().out
        assert f"loaded {run / name}" in printed
        assert ("passed over" in printed) == (name == "iter_4.pth")
        data = bytearray((run / name).read_bytes())
        data[len(data) // 2] ^= 1
        (run / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=r"run holds no intact checkpoint"):
        densevit.load(run)
    assert len(read_manifest(run)) == 2, "nothing is deleted"


def test_the_folder_of_a_run_is_tested_by_its_best_checkpoint(
    run: Path, config: Config, tmp_path: Path, call: Callable[..., int], capsys: Any
) -> None:
    config.pop("work_dir", None)
    config.dump(tmp_path / "mine.py")
    scores = []
    for checkpoint in (run, run / "best_mIoU.pth", run / "iter_4.pth"):
        assert call("test", tmp_path / "mine.py", checkpoint, "--work-dir", tmp_path / "tested") == 0
        scores.append(re.findall(r"mIoU: ([0-9.]+)", capsys.readouterr().out)[-1])
    assert scores[0] == scores[1] != scores[2]


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.pth", "none.pth does not exist"), (".", "no folder of a run: name a checkpoint"), ("bare.pth", "config=")],
)
def test_what_cannot_be_loaded_says_what_could(tmp_path: Path, config: Config, name: str, message: str) -> None:
    torch.save(MODELS.build(config.model).state_dict(), tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match=message):
        densevit.load(tmp_path / name)


def test_weights_without_a_config_are_loaded_with_one(tmp_path: Path, config: Config, images: list[Path]) -> None:
    torch.save(MODELS.build(config.model).state_dict(), tmp_path / "bare.pth")
    config.dump(tmp_path / "mine.py")
    predictor = densevit.load(tmp_path / "bare.pth", tmp_path / "mine.py")
    assert predictor.classes == CLASSES
    assert predictor(images[0]).prediction.mask.shape == (64, 80)
    with pytest.raises(ConfigError, match="has no test_dataloader, which predicting needs"):
        densevit.load(tmp_path / "bare.pth", Config({"model": config.model}))


def test_a_published_model_is_loaded_without_running_its_config(
    run: Path, config: Config, images: list[Path], tmp_path: Path, capsys: Any
) -> None:
    done = publish(config, run / "iter_4.pth", tmp_path / "published", "mine")
    (tmp_path / "published/config.py").write_text("raise SystemExit('it ran')")
    expected = masks_of(densevit.load(run / "iter_4.pth")(images))
    for source in (tmp_path / "published", done.weights):
        predictor = densevit.load(source)
        assert predictor.classes == CLASSES
        assert all(map(torch.equal, masks_of(predictor(images)), expected))
    assert f"loaded {done.weights}: step 4" in capsys.readouterr().out


def test_options_are_those_of_the_tools(run: Path, images: list[Path], config: Config) -> None:
    assert densevit.load(run).model.inference is None
    assert type(densevit.load(run, slide=True).model.inference).__name__ == "SlideInference"
    assert type(densevit.load(run, config, tta=True).model.inference).__name__ == "TestTimeAugment"
    assert "inference" not in config.model, "the config that was given is left as it is"
    with pytest.raises(ConfigError, match="slide_window and slide_stride go with slide and a config of clips"):
        densevit.load(run, slide=True, slide_window=1.0)


def test_nothing_that_a_checkpoint_names_is_imported(
    config: Config, tmp_path: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "planted_module.py").write_text(
        "from densevit import HEADS\n"
        "from densevit.tasks.segmentation import SegFormerHead\n"
        "HEADS.register_module(name='PlantedHead', module=SegFormerHead)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config.custom_imports = {"imports": ["planted_module"]}
    foreign = Config(config.to_dict())
    foreign.model.head.type = "PlantedHead"
    path = save(config, tmp_path / "a/iter_1.pth", carried=to_plain(foreign))
    with pytest.raises(ConfigError, match=r"'PlantedHead' is not .* import planted_module before you load it"):
        densevit.load(path)
    assert "planted_module" not in sys.modules
    import planted_module  # noqa: F401

    assert densevit.load(path)(images[0]).error is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"type": "subprocess.check_output", "args": ["touch", "planted"]}}, "not a registered"),
        ({"model": {"type": "DenseModel", "backbone": 3, "head": []}}, "is configured by a dict|is damaged"),
        ({"test_dataloader": {"batch_size": 1, "dataset": {"type": "os.system"}}}, "not a registered"),
        ({"model": "DenseModel()"}, "carries no config"),
    ],
)
def test_a_config_in_a_checkpoint_that_is_none_is_refused(
    config: Config, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = save(config, tmp_path / "a/iter_1.pth", carried={**to_plain(config), **change})
    with pytest.raises((CheckpointError, ConfigError), match=message):
        densevit.load(path)


def test_code_in_a_config_becomes_text() -> None:
    plain = to_plain(Config({"a": (1, 2.5, None, True), "b": {"c": [print, np.float32(1)]}}))
    assert plain["a"] == [1, 2.5, None, True]
    assert plain["b"]["c"][0] == repr(print)
    assert json.loads(json.dumps(plain)) == plain
    with pytest.raises(CheckpointError, match=r"x\.pth carries no config"):
        from_plain(plain, "x.pth")


def test_images_in_memory_are_predicted_as_their_file(run: Path, images: list[Path], tmp_path: Path) -> None:
    predictor = densevit.load(run)
    picture = Image.open(images[0])
    pixels = np.array(picture)
    same = [pixels, torch.from_numpy(pixels), picture, pixels[..., ::-1].copy()[..., ::-1], np.asarray(picture)]
    expected = predictor(images[0])
    for value in same:
        result = predictor(value)
        assert torch.equal(result.prediction.mask, expected.prediction.mask)
        assert np.array_equal(result.plot(), expected.plot())
        assert result.to_dict() == {**expected.to_dict(), "input": "input_0"}
    assert sorted(p.name for p in predictor([*same, images[1]])[2].save(tmp_path / "out").values()) == [
        "input_2.jpg",
        "input_2.png",
    ]


def test_pictures_are_upright_and_in_colour(run: Path, images: list[Path]) -> None:
    predictor = densevit.load(run)
    turned = Image.open(images[0]).convert("L")
    turned.getexif()[0x0112] = 6
    assert predictor(turned).prediction.mask.shape == (80, 64)
    with pytest.raises(DataError, match="input_0: has transparent pixels"):
        predictor(Image.new("RGBA", (32, 32)))
    with pytest.raises(DataError, match="input_0: more than 8 bits a channel"):
        predictor(Image.new("I", (32, 32)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            np.zeros((3, 32, 40), np.uint8),
            r"input_0: an image is .*\(H, W, 3\) uint8 RGB, not \(3, 32, 40\) uint8; put",
        ),
        (torch.zeros(32, 40, 3), r"not \(32, 40, 3\) float32; scale it to 0..255"),
        (np.zeros((32, 40), np.uint8), r"not \(32, 40\) uint8; .*numpy\.stack\(\[x\] \* 3, -1\)$"),
        (np.zeros((2, 32, 40, 3), np.uint8), r"not \(2, 32, 40, 3\) uint8; several inputs are a list: list\(x\)$"),
        (np.zeros((0, 40, 3), np.uint8), r"not \(0, 40, 3\) uint8$"),
        (3, r"not int$"),
        ("none.jpg", r"none.jpg is no file, no folder with any of .*, no glob"),
    ],
)
def test_what_is_no_image_is_told_before_anything_is_predicted(run: Path, value: Any, message: str) -> None:
    predictor = densevit.load(run)
    with pytest.raises(DataError, match=message):
        predictor(value)
    with pytest.raises(DataError, match=message.replace("input_0", "input_1")):
        predictor([np.zeros((32, 40, 3), np.uint8), value])


def test_one_unreadable_input_raises_and_one_of_many_is_recorded(run: Path, images: list[Path], tmp_path: Path) -> None:
    predictor = densevit.load(run)
    images[1].write_bytes(images[1].read_bytes()[:300])
    with pytest.raises(DataError, match=images[1].name):
        predictor(images[1])
    good, bad, *_ = results = predictor(images[0].parent, batch_size=2)
    assert [result.input for result in results] == [str(path) for path in images]
    assert good.error is None
    assert bad.to_dict() == {"input": str(images[1]), "error": str(bad.error)}
    for use in (lambda: bad.prediction, bad.plot, bad.describe, lambda: bad.save(tmp_path / "out")):
        with pytest.raises(DataError, match=images[1].name):
            use()
    assert not (tmp_path / "out").exists()


def test_lists_folders_and_globs_give_as_many_results_in_order(run: Path, images: list[Path]) -> None:
    predictor = densevit.load(run)
    assert [r.input for r in predictor([str(images[1]), images[0], images[1]])] == [
        str(images[i]) for i in (1, 0, 1)
    ], "as many as were asked for"
    assert len(predictor(f"{images[0].parent}/01[23]*.jpg", batch_size=3)) == 2
    assert len(predictor([images[0]])) == 1
    assert predictor([]) == []
    by_one, by_three = (masks_of(predictor(images, batch_size=n)) for n in (1, 3))
    assert all(map(torch.equal, by_one, by_three))
    with pytest.raises(ConfigError, match="batch_size must be positive"):
        predictor(images, batch_size=0)


def test_results_are_streamed_without_being_kept(run: Path, images: list[Path]) -> None:
    predictor = densevit.load(run)
    stream = predictor.stream(predictor.find(images), batch_size=2)
    first = next(stream)
    images[4].unlink()
    assert first.input == str(images[0])
    assert [result.error is None for result in stream] == [True, True, True, False]


def test_a_result_is_drawn_saved_and_told(run: Path, images: list[Path], tmp_path: Path) -> None:
    result = densevit.load(run)(images[0])
    picture = result.plot()
    assert picture.dtype == np.uint8
    assert picture.shape[1] > 80, "with a legend"
    files = result.save(tmp_path / "out")
    stem = images[0].stem
    assert files == {"overlay": tmp_path / f"out/overlays/{stem}.jpg", "output": tmp_path / f"out/outputs/{stem}.png"}
    assert np.array_equal(np.array(Image.open(files["output"])), result.prediction.mask.numpy())
    assert sum(result.to_dict()["shares"].values()) == pytest.approx(1, abs=1e-5)
    assert repr(result) == f"Result({str(images[0])!r}, SegPrediction)"
