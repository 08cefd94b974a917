"""A published model works where the run is not, says what it is, and tells nothing of the machine."""

import json
import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from mmengine.config import Config

from densevit.commands import run
from densevit.engine.config import load_config
from densevit.engine.environment import commit_of
from densevit.engine.runner import Runner
from densevit.errors import CheckpointError, ConfigError
from densevit.publishing import public_config, publish
from densevit.registry import MODELS
from densevit.weights import load_weights, read_file

ROOT = Path(__file__).parents[1]
ONE_OF_EACH = [*sorted((ROOT / "configs" / "demo").glob("*.py")), ROOT / "configs" / "cct_2_3x2_cifar10_30e.py"]


@pytest.fixture
def tiny(config: Config, tmp_path: Path) -> Path:
    """Return the file of a config that names absolute paths, as one is at home."""
    config.model.weights = str(tmp_path / "start.pth")
    torch.manual_seed(1)
    state = MODELS.build({k: v for k, v in config.model.items() if k != "weights"}).state_dict()
    torch.save({"state_dict": state}, tmp_path / "start.pth")
    config.visualizer = {"type": "Visualizer", "vis_backends": [{"type": "LocalVisBackend"}]}
    config.default_hooks.logger = {"type": "LoggerHook", "log_metric_by_epoch": False}
    config.custom_hooks = [{"type": "EMAHook", "ema_type": "WarmupEMA"}]
    config.dump(tmp_path / "tiny.py")
    return tmp_path / "tiny.py"


@pytest.fixture
def random_checkpoint(tiny: Path, tmp_path: Path) -> Path:
    return tmp_path / "start.pth"


def run_the_card(card: str, monkeypatch: pytest.MonkeyPatch, folder: Path, image: Path, scenes: Path) -> None:
    """Run what a card tells its reader to, as it stands there, in a folder with the model's and with data in it."""
    monkeypatch.chdir(folder)
    (folder / "photo.jpg").write_bytes(image.read_bytes())
    commands, script = re.findall(r"```(?:bash|python)\n(.*?)```", card, re.DOTALL)
    for line in commands.replace("DATA", str(scenes)).splitlines():
        program, command, *arguments = line.split()
        assert program == "densevit"
        run(command, arguments)
    (folder / "script.py").write_text(script)
    runpy.run_path(str(folder / "script.py"))


def test_a_trained_model_is_published_and_used_as_its_card_says(  # type: ignore[no-untyped-def]
    call, capsys, monkeypatch: pytest.MonkeyPatch, tiny: Path, scenes: Path, tmp_path: Path
) -> None:
    assert call("train", tiny, "--work-dir", tmp_path / "run", "--no-amp") == 0
    checkpoint, out, image = tmp_path / "run" / "iter_8.pth", tmp_path / "new" / "mine", next(scenes.rglob("*.jpg"))
    capsys.readouterr()
    assert call("publish_model", tiny, checkpoint, "--out", out, "--name", "shapes") == 0
    printed = capsys.readouterr().out
    (weights,) = out.glob("*.safetensors")
    assert {p.name for p in out.iterdir()} == {weights.name, "config.py", "README.md", "checkpoints.json"}
    assert len({p.stat().st_mode for p in out.iterdir()}) == 1
    assert re.fullmatch(r"shapes-[0-9a-f]{8}", weights.stem)
    assert f"gives the outputs of {checkpoint} bit for bit" in printed
    assert "train_dataloader.dataset.data_root is 'data/scenes'" in printed

    content = torch.load(checkpoint, weights_only=True)
    published = read_file(weights)
    assert published["state_dict"].keys() == content["state_dict"].keys()
    assert all(torch.equal(v, content["state_dict"][k]) for k, v in published["state_dict"].items())  # the averaged
    assert any(
        not torch.equal(v, content["state_dict"][k.removeprefix("module.")])
        for k, v in content["ema_state_dict"].items()
        if k.removeprefix("module.") in content["state_dict"]
    )
    assert published["meta"]["dataset"] == content["meta"]["dataset"]
    assert (published["meta"]["task"], published["meta"]["iter"]) == ("segmentation", 8)

    everything = "".join(p.read_bytes().decode("latin1") for p in out.iterdir())
    assert str(tmp_path) not in everything
    assert str(Path.home()) + "/" not in everything
    card = (out / "README.md").read_text()
    score = re.search(r"\| mIoU \| (\d\.\d{4}) \|", card)
    assert score is not None, card
    for fact in ("tiny.py, 8 steps, started from start.pth, weights averaged", "3: ground, square, disc", "| MiT |"):
        assert fact in card

    capsys.readouterr()
    run_the_card(card, monkeypatch, out.parent, image, scenes)
    printed = capsys.readouterr().out
    assert (out.parent / "predictions" / "overlays" / "photo.jpg").exists()
    assert re.search(rf"mIoU:? +{score[1]}", printed), printed
    assert "{'input': 'photo.jpg', 'shares': {" in printed


def test_classes_are_those_that_the_model_was_trained_on(  # type: ignore[no-untyped-def]
    call, tiny: Path, random_checkpoint: Path, scenes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = torch.load(random_checkpoint, weights_only=True)
    dataset = {"classes": ["sea", "ship", "sun"], "palette": [[0, 0, 1], [0, 1, 0], [1, 0, 0]]}
    torch.save({**content, "meta": {"dataset": dataset}}, random_checkpoint)
    published = publish(load_config(tiny), random_checkpoint, tmp_path / "out", "x")
    with safetensors.safe_open(published.weights, "pt") as file:
        header = json.loads(file.metadata()["densevit"])
    assert header["dataset"] == dataset
    cfg = load_config(tiny, {"load_from": str(published.weights)})
    cfg.custom_hooks = []
    runner = Runner.from_cfg(cfg)
    runner.test()
    assert (
        "trained with other classes: number 0 is 'sea' and 'ground'"
        in Path(runner.log_dir).rglob("*.log").__next__().read_text()
    )


def test_damage_to_a_published_file_is_noticed(
    tiny: Path, random_checkpoint: Path, tmp_path: Path, call, capsys
) -> None:  # type: ignore[no-untyped-def]
    weights = publish(load_config(tiny), random_checkpoint, tmp_path / "out", "x").weights
    data = bytearray(weights.read_bytes())
    data[-100] ^= 1
    weights.write_bytes(data)
    assert call("predict", tmp_path / "out" / "config.py", weights, tmp_path / "scenes") == 2
    assert "is corrupt: its bytes are not those that were written" in capsys.readouterr().err


def test_a_published_file_starts_a_training_and_cannot_be_resumed(  # type: ignore[no-untyped-def]
    call, capsys, tiny: Path, random_checkpoint: Path, tmp_path: Path
) -> None:
    weights = publish(load_config(tiny), random_checkpoint, tmp_path / "out", "x").weights
    cfg = load_config(tiny)
    model = MODELS.build({k: v for k, v in cfg.model.items() if k != "weights"})
    assert load_weights(model, weights).missing == []
    state = read_file(random_checkpoint)["state_dict"]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert call("train", tiny, "--work-dir", tmp_path / "new", "--resume", weights) == 2
    assert re.search(r"cannot be resumed: it holds no .*\. Pass it as --weights", capsys.readouterr().err)


def test_what_is_in_the_way_is_not_overwritten(tiny: Path, random_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    publish(load_config(tiny), random_checkpoint, tmp_path / "out", "x")  # an empty folder is in nobody's way
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="is in use already: choose another --out"):
        publish(load_config(tiny), random_checkpoint, tmp_path / "out", "x")
    with pytest.raises(ConfigError, match="is in use already"):
        publish(load_config(tiny), random_checkpoint, tiny, "x")
    with pytest.raises(ConfigError, match="cannot write to"):
        publish(load_config(tiny), random_checkpoint, tiny / "out", "x")
    with pytest.raises(ConfigError, match="is no name for files"):
        publish(load_config(tiny), random_checkpoint, tmp_path / "new", "a/b")
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_is_published_of_a_model_that_computes_otherwise_when_it_is_read_again(
    tiny: Path, random_checkpoint: Path, tmp_path: Path
) -> None:
    content = torch.load(random_checkpoint, weights_only=True)
    content["state_dict"]["head.linear_pred.bias"][0] = float("nan")
    torch.save(content, random_checkpoint)
    with pytest.raises(CheckpointError, match=r"do not give the outputs of the checkpoint.*finite"):
        publish(load_config(tiny), random_checkpoint, tmp_path / "out", "x")
    assert not (tmp_path / "out").exists()


def test_paths_of_the_machine_do_not_leave_it(config: Config) -> None:
    home = str(Path.home() / "me")
    values: dict[str, Any] = {
        "absolute": f"{home}/data/a.json",
        "home": "~/b",
        "windows": r"C:\\Users\\me\\c",
        "relative": "data/d",
    }
    config.variables = [values]
    config.load_from, config.resume, config.launcher = f"{home}/x.pth", True, "pytorch"
    config.model.weights = f"{home}/start.pth"
    public, renamed = public_config(config)
    assert public.variables == [
        {"absolute": "data/a.json", "home": "data/b", "windows": "data/c", "relative": "data/d"}
    ]
    assert {"variables.0.absolute", "variables.0.home", "train_dataloader.dataset.data_root"} <= renamed.keys()
    assert home not in public.pretty_text
    assert not {"work_dir", "load_from", "resume", "launcher"} & public.keys()
    assert "weights" not in public.model


def test_a_path_that_cannot_be_left_out_ends_it(
    tiny: Path, random_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    cfg = load_config(tiny)
    cfg.note = f"see {tmp_path}/notes.txt"
    with pytest.raises(ConfigError, match=r"config\.py would name .*: find it by densevit print-config"):
        publish(cfg, random_checkpoint, tmp_path / "out", "x")
    assert not (tmp_path / "out").exists()


def test_the_commit_is_that_of_our_own_checkout(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    package = tmp_path / "site-packages" / "densevit"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    assert commit_of(package) is None
    git("init")
    assert commit_of(package) is None  # of somebody's project that it is installed in
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-m", "x", "--no-gpg-sign")
    found = commit_of(package)
    assert found is not None
    assert re.fullmatch(r"[0-9a-f]{40}", found)
    (package / "__init__.py").write_text("changed\n")
    assert commit_of(package) == f"{found}-dirty"


@pytest.mark.slow
@pytest.mark.parametrize("path", ONE_OF_EACH, ids=lambda p: p.stem)
def test_models_of_every_task_are_published(path: Path, tmp_path: Path) -> None:
    cfg = load_config(path)
    torch.manual_seed(0)
    torch.save(MODELS.build(cfg.model).state_dict(), tmp_path / "random.pth")
    published = publish(cfg, tmp_path / "random.pth", tmp_path / "out", path.stem)
    card = (tmp_path / "out" / "README.md").read_text()
    assert published.weights.name in card
    assert published.renamed == {}
    assert "| task | unknown |" not in card
