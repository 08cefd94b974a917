"""Nothing that comes from elsewhere is executed: weights, data, lists, and dicts that name a type.

Each planted file would make a folder if anything unpickled or built what it asks for.
"""

import json
import os
import pickle
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.fileio import load as load_by_suffix

from densevit.data.cifar import read_cifar
from densevit.engine.checkpoint import load_model
from densevit.engine.config import check_config, load_config
from densevit.engine.runner import Runner
from densevit.engine.writer import output_names
from densevit.errors import CheckpointError, ConfigError, DataError, DensevitError
from densevit.registry import MODELS
from densevit.weights import load_weights, read_file

TOOLS = Path(__file__).parents[1] / "tools"


def plant(kind: str, path: Path, attack: object) -> Path:
    """Write a file of weights with an attack in it."""
    content = {"state_dict": {"weight": torch.ones(2)}, "hook": attack}
    if kind == "objects in .npz":
        path = path.with_suffix(".npz")
        np.savez(path, weight=np.array([attack], dtype=object))
    elif kind == "objects in .npy":
        path = path.with_suffix(".npz")
        with path.open("wb") as file:
            np.save(file, np.array([attack], dtype=object))
    elif kind == "plain pickle":
        path.write_bytes(pickle.dumps(content))
    elif kind == "plain pickle as .safetensors":
        path = path.with_suffix(".safetensors")
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "torch's zip")
    return path


KINDS = (
    "torch's zip",
    "torch's old format",
    "plain pickle",
    "plain pickle as .safetensors",
    "objects in .npz",
    "objects in .npy",
)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", KINDS)
def test_code_in_weights_is_never_run(
    kind: str, ran: Path, attack: object, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # which some set for other software
    path, model = plant(kind, tmp_path / "weights.pth", attack), MODELS.build(config.model)
    for read in (read_file, lambda p: load_weights(model, p), lambda p: load_model(model, p)):
        with pytest.raises(CheckpointError, match=path.name):
            read(path)
    assert not ran.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_weights_is_run_by_no_way_into_a_run(ran: Path, attack: object, config: Config, tmp_path: Path) -> None:
    path = plant("torch's zip", tmp_path / "weights.pth", attack)
    for way in ({"load_from": str(path), "resume": True}, {"load_from": str(path)}, {}):
        cfg = Config({**config.to_dict(), **way})
        if not way:
            cfg.model.weights = str(path)
        with pytest.raises(CheckpointError, match=r"weights\.pth asks to run posix\.mkdir"):
            Runner.from_cfg(cfg).train()
    assert not ran.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_tools_say_in_one_line_what_a_file_asks_to_run(  # type: ignore[no-untyped-def]
    call, capsys, ran: Path, attack: object, config: Config, scenes: Path, tmp_path: Path
) -> None:
    config.dump(tmp_path / "tiny.py")
    path, image = plant("torch's zip", tmp_path / "weights.pth", attack), next((scenes / "images" / "val").iterdir())
    assert call("predict", tmp_path / "tiny.py", path, image, "--out", tmp_path / "out") == 2
    assert call("test", tmp_path / "tiny.py", path) == 2
    assert call("train", tmp_path / "tiny.py", "--weights", path, "--work-dir", tmp_path / "new") == 2
    printed = capsys.readouterr().err
    assert printed.count("asks to run posix.mkdir, which could do anything") == 3
    assert "Traceback" not in printed
    assert not ran.exists()


def test_the_planted_attack_would_have_worked(ran: Path, attack: object, tmp_path: Path) -> None:
    pickle.loads(plant("plain pickle", tmp_path / "weights.pth", attack).read_bytes())
    assert ran.is_dir()


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_code_in_pickles_of_data_is_never_run(ran: Path, attack: object, protocol: int, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [f"data_batch_{i}" for i in range(1, 6)]:
        (folder / name).write_bytes(pickle.dumps({b"data": attack, b"labels": [0]}, protocol))
    with pytest.raises(DataError, match=r"data_batch_1: unsafe: the pickle asks for posix\.mkdir"):
        read_cifar(tmp_path, "train", 10)
    assert not ran.exists()


@pytest.mark.parametrize("address", ["https://example.org/mit_b0.pth", "s3://bucket/mit_b0.pth", "file:///mit_b0.pth"])
def test_nothing_is_downloaded(address: str, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("looked a host up"))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("connected"))
    with pytest.raises(CheckpointError, match="is an address, and nothing is downloaded"):
        load_weights(MODELS.build(config.model), address)


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json", ".pkl", ""])
@pytest.mark.parametrize("as_base", [False, True])
def test_configs_that_are_no_python_are_not_read(suffix: str, as_base: bool, ran: Path, tmp_path: Path) -> None:
    path = tmp_path / f"evil{suffix}"
    path.write_text(f"work_dir: !!python/object/apply:os.mkdir ['{ran}']\n")
    if as_base:
        (tmp_path / "base.py").write_text(f'_base_ = "{path.name}"\n')
        (tmp_path / "mine.py").write_text('_base_ = ["base.py"]\n')
        path = tmp_path / "mine.py"
    with pytest.raises(ConfigError, match=r"evil.*: configs are Python files"):
        load_config(path)
    assert not ran.exists()
    if suffix == ".yaml" and not as_base:
        load_by_suffix(path)  # mmengine's, by which it would have been read
        assert ran.exists()


def test_a_base_that_is_missing_or_no_python_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text('_base_ = ["base.py"]\n')
    with pytest.raises(ConfigError, match=r"mine\.py: no base .*base\.py"):
        load_config(tmp_path / "mine.py")
    (tmp_path / "base.py").write_text("model = dict(\n")
    with pytest.raises(ConfigError, match=r"base\.py is no Python"):
        load_config(tmp_path / "mine.py")


# Every section in which mmengine or we build something, with what leads to the dict in it.
SECTIONS = (
    "model",
    "model.backbone",
    "model.neck",
    "model.head",
    "model.head.auxiliary",
    "model.inference",
    "model.data_preprocessor",
    "train_dataloader.dataset",
    "train_dataloader.dataset.transforms.0",
    "train_dataloader.sampler",
    "train_dataloader.batch_sampler",
    "train_dataloader.collate_fn",
    "train_dataloader.worker_init_fn",
    "train_cfg",
    "val_cfg",
    "test_cfg",
    "val_evaluator",
    "optim_wrapper",
    "optim_wrapper.optimizer",
    "param_scheduler.0",
    "default_hooks.evil",
    "custom_hooks.0",
    "visualizer",
    "visualizer.vis_backends.0",
    "log_processor",
    "model_wrapper_cfg",
    "env_cfg.evil",
    "parallel",
    "compile",
)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_dotted_type_is_imported_nowhere(section: str, ran: Path, config: Config) -> None:
    config = with_section(config, section, {"type": "os.mkdir", "path": str(ran)})
    for check in (check_config, Runner.from_cfg):
        with pytest.raises(ConfigError, match=rf"{section}\.type is 'os\.mkdir'"):
            check(Config(config.to_dict()))
    assert not ran.exists()


@pytest.mark.parametrize("section", SECTIONS)
def test_a_scope_does_not_lead_around_our_registries(section: str, config: Config) -> None:
    config = with_section(config, section, {"type": "Anything", "_scope_": "mmengine"})
    with pytest.raises(ConfigError, match=rf"{section}\._scope_: leave it out"):
        Runner.from_cfg(config)


def with_section(config: Config, section: str, value: dict[str, Any]) -> Config:
    """Return a config with another dict in the place that a dotted key names."""
    content = config.to_dict()
    node, keys = content, section.split(".")
    for key, after in zip(keys, [*keys[1:], None], strict=True):
        if key.isdigit():
            node[0] = value if after is None else node[0]
            node = node[0]
            continue
        if after is None:
            node[key] = value
        elif after.isdigit() and not node.get(key):
            node[key] = [None]
        node = node.setdefault(key, {})
    return Config(content)


@pytest.mark.parametrize("key", ["optim_wrapper.constructor", "custom_hooks.0.ema_type"])
def test_names_under_other_keys_are_registered_ones_too(key: str, config: Config) -> None:
    config.custom_hooks = [{"type": "EMAHook", "ema_type": "WarmupEMA"}]
    config.merge_from_dict({key: "os.mkdir"})
    with pytest.raises(ConfigError, match=r"'os\.mkdir' is not a registered"):
        Runner.from_cfg(config).train()


@pytest.mark.parametrize("scope", ["mmengine", "mmdet"])
def test_another_default_scope_is_refused(scope: str, config: Config) -> None:
    config.default_scope = scope
    with pytest.raises(ConfigError, match=f"default_scope is '{scope}': leave it out"):
        Runner.from_cfg(config)


def test_without_a_default_scope_ours_is_used_and_not_mmengine_s(config: Config) -> None:
    config.pop("default_scope")
    config.visualizer = {"type": "mkdir"}
    with pytest.raises(ConfigError, match="'mkdir' is not a registered visualizer"):
        Runner.from_cfg(config)


@pytest.mark.parametrize("key", ["_target_", "__class__", "class_path"])
def test_other_words_for_a_type_build_nothing(key: str, ran: Path) -> None:
    with pytest.raises(ConfigError, match='a dict with the key "type"'):
        MODELS.build(ConfigDict({key: "os.mkdir", "path": str(ran)}))
    assert not ran.exists()


def test_an_option_of_the_command_line_builds_nothing_by_a_dotted_path(  # type: ignore[no-untyped-def]
    call, capsys, config: Config, ran: Path, tmp_path: Path
) -> None:
    config.dump(tmp_path / "tiny.py")
    options = [f"model.head.type={name}" for name in ("os.mkdir", "subprocess.check_output")]
    for option in options:
        assert call("train", tmp_path / "tiny.py", "--cfg-options", option) == 2
        assert "not a registered" in capsys.readouterr().err


HOSTILE_META = (
    None,
    [],
    "text",
    {"dataset": []},
    {"dataset": {"classes": 3, "palette": 3}},
    {"dataset": {"classes": ["a"] * 3, "palette": [["x", "y", "z"]] * 3}},
    {"dataset": {"classes": ["a"] * 3, "palette": [[0, 0, 300]] * 3}},
    {"dataset": {"classes": [], "palette": []}},
    {"dataset": {"classes": ["only one"], "palette": [[1, 2, 3]]}, "config_name": [[]]},
)


@pytest.mark.parametrize("meta", HOSTILE_META, ids=str)
def test_what_a_file_says_of_itself_is_not_relied_on(  # type: ignore[no-untyped-def]
    call, meta: Any, config: Config, scenes: Path, tmp_path: Path
) -> None:
    config.dump(tmp_path / "tiny.py")
    content = {"meta": meta, "state_dict": MODELS.build(config.model).state_dict(), "optimizer": {}}
    torch.save(content, tmp_path / "odd.pth")
    image = next((scenes / "images" / "val").iterdir())
    assert call("predict", tmp_path / "tiny.py", tmp_path / "odd.pth", image, "--out", tmp_path / "out") == 0
    cfg = Config({**config.to_dict(), "load_from": str(tmp_path / "odd.pth"), "resume": True})
    with pytest.raises(CheckpointError, match=r"odd\.pth cannot be resumed"):
        Runner.from_cfg(cfg).train()


def test_what_a_checkpoint_of_ours_says_of_itself_is_plain_json(config: Config) -> None:
    config.train_cfg.max_iters = 2
    Runner.from_cfg(config).train()
    for path in sorted(Path(config.work_dir).glob("*.pth")):
        content = torch.load(path, weights_only=True)
        assert json.loads(json.dumps(content["meta"], allow_nan=False)) == content["meta"]


@pytest.mark.parametrize(
    "hostile",
    ["../../outside.jpg", "a/../../../outside.jpg", "..", "images#7", "../x.png#3", "/outside.png", "a/\x00b.jpg"],
)
def test_results_stay_in_their_folder_whatever_inputs_are_called(hostile: str, tmp_path: Path) -> None:
    for others in ([], ["plain.jpg"], ["plain.jpg", "sub/other.jpg"]):
        paths = [os.path.join(tmp_path / "data" / "images", name) for name in (hostile, *others)]
        for name in output_names(paths):
            assert not os.path.isabs(name)
            assert ".." not in Path(name).parts


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
def test_other_formats_under_the_name_of_weights_are_errors_of_ours(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    for content in (b"", b"{}", b"#!/bin/sh\n", b"PK\x03\x04", b"\x80\x04.", b"\x93NUMPY", b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(DensevitError, match="weights"):
            read_file(path)
