"""A folder in which the blocks of a page are run, one after the other, and what stands ready in it."""

import contextlib
import io
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from densevit import commands, registry
from densevit.engine import config as configs
from densevit.registry import MODELS
from tests.docs.blocks import ROOT, Block
from tests.docs.layouts import provide
from tests.docs.shortening import Schedule, schedule_of, shorten
from tests.docs.things import make_run, make_things

PAGE = "__main__"  # the module that blocks are
_RUN = re.compile(r"work_dirs/\w+")
_CHECKPOINT = re.compile(r"(work_dirs/[\w/-]+)/(iter|epoch)_(\d+)(?:\.pth)?")


class BlockError(AssertionError):
    """A block does not do what its page says."""

    def __init__(self, block: Block, line: int, printed: str) -> None:
        super().__init__(f"{block.page}:{line}\n{printed.strip()}")


class Sandbox:
    """The working directory and what the blocks of a page share.

    Args:
        page: The page, a path from the root of the repository on.
        source: Where generated data are kept from which others are copied.
    """

    def __init__(self, page: str, source: Path) -> None:
        self.page, self.source = page, source
        self.names: dict[str, Any] = {"__name__": PAGE}
        self.arguments: list[str] = []  # of the command that runs
        self._schedules: dict[str, Schedule] = {}  # by folder of the run
        self._load_config = configs.load_config

    def write(self, block: Block) -> None:
        """Write a file; a config must load, and its model be built."""
        path = Path(str(block.name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
        sys.modules.pop(path.stem, None)
        if block.is_config:
            with explained(block), torch.device("meta"):
                cfg = self._load_config(path)
                MODELS.build({key: value for key, value in cfg.model.items() if key != "weights"})

    def run_python(self, block: Block) -> None:
        """Run statements with the names of the blocks before."""
        make_things(block.text)
        for folder in set(_RUN.findall(block.text)):
            self.have_run(Path(folder))
        for found in _CHECKPOINT.finditer(block.text):
            self.have_checkpoint(found[0])
        with explained(block):
            # with the lines of the page, for tracebacks
            exec(compile("\n" * (block.line - 1) + block.text, str(ROOT / block.page), "exec"), self.names)

    def have_run(self, folder: Path) -> Path | None:
        """Return the newest checkpoint of a run; where a config has the name of its folder, it is made if need be."""
        if written := self.checkpoints(folder):
            return max(written, key=lambda path: path.stat().st_mtime_ns)
        cfg = self._config_called(folder.name)
        return cfg and make_run(folder, cfg)

    def checkpoints(self, folder: Path) -> list[Path]:
        """Return the checkpoints of a run, files and, of split models, folders."""
        return [path for path in folder.glob("*_*") if re.fullmatch(r"(iter|epoch)_\d+(\.pth)?", path.name)]

    def have_checkpoint(self, name: str) -> None:
        """Let a run have the checkpoints that it would have, were it not cut."""
        found = _CHECKPOINT.fullmatch(name)
        if found is None or Path(name).exists():
            return
        folder, unit, number = found.groups()
        schedule = self._schedules.get(folder)
        if schedule is None and (cfg := self._config_called(Path(folder).name)):
            schedule = schedule_of(cfg)
        if schedule and schedule.saves(unit, int(number)) and (written := self.have_run(Path(folder))):
            (shutil.copytree if written.is_dir() else shutil.copyfile)(written, name)

    def _config_called(self, name: str) -> Config | None:
        own = [folder / f"{name}.py" for folder in (Path(), Path("configs")) if (folder / f"{name}.py").is_file()]
        paths = [*own, *sorted((ROOT / "configs").rglob(f"{name}.py"))]
        return self._load_config(paths[0]) if paths else None

    def option(self, name: str) -> str | None:
        """Return the value of an option of the command that runs."""
        return self.arguments[self.arguments.index(name) + 1] if name in self.arguments else None

    def work_dir(self) -> Path:
        """Return where the command that runs writes to."""
        return Path(self.option("--work-dir") or f"work_dirs/{Path(self.arguments[1]).stem}")

    def _cut_config(self, path: str | Path, options: dict[str, Any] | None = None) -> Config:
        """Load a config as a command gets it: short, with its data in place."""
        cfg = self._load_config(path, options)
        if self.arguments[:1] == ["train"] and (schedule := schedule_of(cfg)):
            self._schedules[str(self.work_dir())] = schedule
        shorten(cfg)
        provide(cfg, self.source, self.option("--data-root"))
        return cfg

    @contextlib.contextmanager
    def open(self, folder: Path) -> Iterator[None]:
        """Work in a folder, which is no checkout; leave this process as it was."""
        folder.mkdir(parents=True)
        for command in commands.COMMANDS:  # so that they are imported as they are
            commands.command(command)
        with contextlib.ExitStack() as stack:
            stack.callback(os.chdir, Path.cwd())
            os.chdir(folder)
            stack.enter_context(kept_imports(folder))
            stack.callback(shutil.rmtree, folder)
            stack.enter_context(replaced("load_config", self._load_config, self._cut_config))
            yield


@contextlib.contextmanager
def replaced(name: str, old: Callable[..., Any], new: Callable[..., Any]) -> Iterator[None]:
    """Have all modules call another function, also those that are imported meanwhile."""

    def exchange(old: Callable[..., Any], new: Callable[..., Any]) -> None:
        for module in list(sys.modules.values()):
            if vars(module).get(name) == old:
                setattr(module, name, new)

    exchange(old, new)
    try:
        yield
    finally:
        exchange(new, old)


@contextlib.contextmanager
def kept_imports(folder: Path) -> Iterator[None]:
    """Forget, at the end, the modules of a folder, what they and blocks registered, and that it was looked into."""
    paths = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = paths
        own = [
            name for name, module in sys.modules.items() if str(vars(module).get("__file__")).startswith(str(folder))
        ]
        for kind in vars(registry).values():
            if isinstance(kind, registry.Registry):
                for name, made in list(kind.module_dict.items()):
                    if made.__module__ in (*own, PAGE):
                        del kind.module_dict[name]
        for name in own:
            del sys.modules[name]


@contextlib.contextmanager
def explained(block: Block) -> Iterator[None]:
    """Raise what goes wrong as an error of the block, with the line of its page and all that was printed.

    Raises:
        BlockError: Something was raised.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            yield
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(ROOT / block.page)]
        text = printed.getvalue() + "".join(traceback.format_exception(error))
        raise BlockError(block, (lines or [block.line])[0] or block.line, text) from None
