"""What of a config is code, and what is not.

A config is a Python file, and so are its bases: who runs one runs code, and sees that. Nothing else of it may be code.
mmengine's reader of YAML makes any object that the file names, and its own registries import any dotted path, where
ours (`densevit.registry`) have no say: where a dict asks for them by ``_scope_``, or a config for another
``default_scope``.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from densevit.engine.config_bases import find_base
from densevit.errors import ConfigError

SCOPE = "densevit"


def check_files(path: Path) -> None:
    """Check that a config and its bases are Python files without syntax errors, before anything in them runs.

    Raises:
        ConfigError: One of them is missing, of another kind, or no Python.
    """
    if path.suffix != ".py":
        raise ConfigError(f"{path}: configs are Python files; write it as one, for YAML and JSON are not read")
    try:
        bases = Config._get_base_files(str(path))
    except SyntaxError as error:
        raise ConfigError(f"{path} is no Python: {error}") from None
    for base in bases:
        if not (file := find_base(base, path.parent)).is_file():
            raise ConfigError(f"{path}: no base {file}; correct its _base_")
        check_files(file)


def check_types(cfg: Config) -> None:
    """Check that every ``type`` is a name, wherever it is, and let our registries say which there are.

    Raises:
        ConfigError: One is a dotted path, or other registries than ours are asked for.
    """
    scope = cfg.setdefault("default_scope", SCOPE)
    if scope != SCOPE:
        raise ConfigError(f'default_scope is {scope!r}: leave it out, or set it to "{SCOPE}"')
    for key, value in _items(cfg.to_dict(), ""):
        name = key.rpartition(".")[2]
        if name == "_scope_":
            raise ConfigError(f"{key}: leave it out; registries of other packages are not used")
        if name == "type" and isinstance(value, str) and "." in value:
            raise ConfigError(
                f"{key} is {value!r}, not a registered name. A dotted path is never imported: register the class, and "
                "name its module in custom_imports"
            )


def _items(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of all there is in mappings and lists, with their values."""
    if isinstance(node, Mapping):
        pairs = [(str(key), value) for key, value in node.items()]
    elif isinstance(node, list | tuple):
        pairs = [(str(index), value) for index, value in enumerate(node)]
    else:
        return
    for key, value in pairs:
        inner = f"{path}.{key}" if path else key
        yield inner, value
        yield from _items(value, inner)
