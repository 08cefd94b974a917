"""Where configs and their bases are found: files, or those of this package by their names."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config

from densevit.errors import ConfigError
from densevit.registry import suggestion

CONFIGS = Path(__file__).parents[1] / "configs"
OURS = "densevit::"  # before the name of a base that is one of ours, as OpenMMLab names those of packages


def configs() -> dict[str, Path]:
    """Return the files of our configs by their names, such as "segformer_b0_ade20k" or "demo/unetr_phantom"."""
    return {p.relative_to(CONFIGS).with_suffix("").as_posix(): p for p in CONFIGS.rglob("*.py")}


def find_config(path: Path) -> Path:
    """Return the file of a config, of one of ours by its name too, with or without ".py".

    Raises:
        ConfigError: There is none; the nearest name is suggested.
    """
    if path.is_file():
        return path
    ours, name = configs(), path.as_posix().removesuffix(".py")
    if name in ours:
        return ours[name]
    if path.parent != Path() and path.parent.is_dir():
        raise ConfigError(f"no config {path}.{suggestion(path.name, (p.name for p in path.parent.glob('*.py')))}")
    names = [name for name in ours if not name.startswith("_base_/")]
    beside = path.with_suffix(".py")
    near = [str(beside)] if beside.is_file() else difflib.get_close_matches(name.removeprefix("configs/"), names, n=3)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else f" Those of densevit are in {CONFIGS}"
    raise ConfigError(f"no config {path} (working directory: {Path.cwd()}).{hint}")


def find_base(base: str, folder: Path) -> Path:
    """Return the file of a base: one of ours for "densevit::NAME", else a path that is relative to a folder.

    Raises:
        ConfigError: There is none of ours by that name.
    """
    if base.startswith(OURS):
        return find_config((CONFIGS / base.removeprefix(OURS)).with_suffix(".py"))
    return folder / base


@contextmanager
def named_bases() -> Iterator[None]:
    """Let `mmengine.Config`, which knows packages of OpenMMLab only, find bases as `find_base` does.

    It calls its static methods by its own name, so that a subclass would not do.
    """

    def path_of(base: str, filename: str) -> tuple[str, None]:
        return str(find_base(base, Path(filename).parent)), None

    original: Any = vars(Config)["_get_cfg_path"]
    Config._get_cfg_path = staticmethod(path_of)
    try:
        yield
    finally:
        Config._get_cfg_path = original
