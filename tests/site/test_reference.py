"""The reference has an entry for whatever a config, a command line or a script may name."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import densevit
from densevit import registry
from densevit.commands import COMMANDS, command
from densevit.engine import config
from densevit.registry import Registry, accepted_keys

CONFIGS = Path(__file__).parents[2] / "docs" / "reference" / "config.md"
REGISTRIES = {kind.name: kind for kind in vars(registry).values() if isinstance(kind, Registry)}
SECTIONS = {
    "Sections": config.RUN_KEYS,
    "model": accepted_keys(registry.MODELS.get("DenseModel")) | {"type", "weights"},
    "train_dataloader": config.TRAIN_LOADER_KEYS,
    "val_dataloader": config.LOADER_KEYS,
    "train_dataloader.multi_scale": config.MULTI_SCALE_KEYS,
    **config.LOOP_KEYS,
    "optim_wrapper": accepted_keys(registry.OPTIM_WRAPPERS.get("OptimWrapper"))
    | {"type", "constructor", "paramwise_cfg"},
    "optim_wrapper.paramwise_cfg": config.PARAMWISE_KEYS,
    "param_scheduler": {"begin", "by_epoch", "convert_to_iter_based", "end"},
    "auto_scale_lr": config.SCALE_KEYS,
    "parallel": set().union(*config.PARALLEL_KEYS.values()),
    "env_cfg.dist_cfg": config.DIST_KEYS,
}
Extension = Callable[[str], ModuleType]


def registered() -> list[tuple[str, Any]]:
    found = {kind.get(name): f"{kind.name} {name}" for kind in REGISTRIES.values() for name in kind.names()}
    return [(name, target) for target, name in found.items() if target.__module__.startswith("densevit.")]


def described() -> dict[str, set[str]]:
    """Return the keys of each table of the page of configs by the heading above it."""
    _, *parts = re.split(r"^## `?([\w.]+)`?$", CONFIGS.read_text(), flags=re.MULTILINE)
    return {
        title: {key for row in re.findall(r"^\| (`[^|]+)\|", text, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)}
        for title, text in zip(parts[::2], parts[1::2], strict=True)
    }


def test_every_key_of_a_config_is_described_and_no_other() -> None:
    assert described() == SECTIONS


@pytest.mark.parametrize("kind", REGISTRIES.values(), ids=REGISTRIES.keys())
def test_every_registered_name_has_an_entry(kind: Registry, extension: Extension) -> None:
    pages = "".join(extension("reference").pages().values())
    entries = set(re.findall(r"^(?:``type=\"|- ``|   \* - ``)(\w+)", pages, re.MULTILINE))
    assert set(kind.names()) - entries == set()
    assert kind.names()


def test_every_public_name_has_an_entry(extension: Extension) -> None:
    page = extension("reference").pages()["python"]
    entries = set(re.findall(r"^\.\. auto\w+:: \S+\.(\w+)$|``densevit\.(\w+)``", page, re.MULTILINE))
    assert set(densevit.__all__) - {"__version__"} <= {name for pair in entries for name in pair}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_has_an_entry(name: str, extension: Extension) -> None:
    page = extension("options").page()
    section = page.split(f".. program:: densevit {name}\n")[1].split(".. program::")[0]
    for action in command(name)[0]._actions:
        assert action.help, f"{name} does not say what {action.dest} is"
        for option in action.option_strings:
            assert option in ("-h", "--help") or re.search(rf"^\.\. option:: .*{option}\b", section, re.MULTILINE)


@pytest.mark.parametrize("target", [pytest.param(t, id=n) for n, t in registered() if inspect.isclass(t)])
def test_a_docstring_lists_exactly_the_arguments(target: Any, extension: Extension) -> None:
    listed = {argument.name: argument for argument in extension("arguments").arguments(target)}
    assert [name for name, argument in listed.items() if not argument.text] == []
    own = extension("arguments").words(target.__dict__.get("__doc__"))
    signature = inspect.signature(target.__init__).parameters if "__init__" in target.__dict__ else listed
    assert own.keys() - signature.keys() == set()


def test_variants_say_what_they_are(extension: Extension) -> None:
    functions = [(name, t) for name, t in registered() if not inspect.isclass(t)]
    assert functions
    for name, target in functions:
        assert inspect.getdoc(target), name
        named = [p.name for p in inspect.signature(target).parameters.values() if p.kind is not p.VAR_KEYWORD]
        if named:
            assert extension("arguments").words(target.__doc__).keys() >= set(named), name
