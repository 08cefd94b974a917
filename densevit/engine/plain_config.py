"""Configs as plain data, which checkpoints carry: what a JSON could hold, so that reading one executes nothing."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from densevit.engine.config import check_config
from densevit.errors import CheckpointError, ConfigError

SECTIONS = ("model", "test_dataloader")  # that predicting needs


def to_plain(cfg: Any) -> Any:
    """Return a config, or a part of one, of dicts, lists, texts, numbers and None; of anything else its ``repr``."""
    if isinstance(cfg, Config):
        cfg = cfg.to_dict()
    if isinstance(cfg, Mapping):
        return {str(key): to_plain(value) for key, value in cfg.items()}
    if isinstance(cfg, list | tuple):
        return [to_plain(value) for value in cfg]
    if cfg is None or type(cfg) in (bool, int, float, str):
        return cfg
    return repr(cfg)


def from_plain(plain: Any, where: str) -> Config:
    """Return model and test data of the config that a checkpoint carries, checked.

    Modules of its ``custom_imports`` are code, and not imported.

    Args:
        plain: What `to_plain` made.
        where: The checkpoint, for messages.

    Raises:
        CheckpointError: It is no config, or one without those sections.
        ConfigError: It names what is not registered.
    """
    if not isinstance(plain, Mapping) or not all(isinstance(plain.get(section), Mapping) for section in SECTIONS):
        raise CheckpointError(
            f"{where} carries no config with {' and '.join(SECTIONS)}: pass config= with the name or file of one"
        )
    try:
        cfg = Config({section: plain[section] for section in SECTIONS})
        check_config(cfg)
    except ConfigError as error:
        imports = plain.get("custom_imports")
        modules = imports.get("imports") if isinstance(imports, Mapping) else None
        if not modules:
            raise ConfigError(f"the config in {where}: {error}") from None
        names = modules if isinstance(modules, str) else ", ".join(map(str, modules))
        raise ConfigError(
            f"the config in {where}: {error} It was trained with modules of yours, which a checkpoint may not have "
            f"imported: import {names} before you load it, or pass config= with the file of the config"
        ) from None
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise CheckpointError(f"the config in {where} is damaged ({error}): pass config= with its file") from error
    return cfg
