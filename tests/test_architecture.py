"""The tree keeps its shape: imports point one way, files and functions stay small, names say what is in them."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each part may import those above it. A new module of densevit/ gets a line here, as high up as its imports allow.
ORDER = (
    "errors",
    "diagnosis",
    "structures",
    "seeding",
    "palette",
    "tables",
    "small_convs",
    "features",
    "registry",
    "contract",
    "layers",
    "losses",
    "data",
    "backbones",
    "necks",
    "preprocess",
    "classifier",
    "checkpoint_folder",
    "weights",
    "engine",
    "model",
    "inference",
    "inputs",
    "predictor",
    "loading",
    "model_card",
    "publishing",
    "export",
    "tasks",
    "web",
    "api",
    "cli",
    "commands",
    "__main__",
)
VAGUE = {"utils", "util", "core", "common", "builder", "helpers", "misc", "base"}
MAX_LINES, MAX_FUNCTION = 400, 60
LONGER = {"tests/test_contract.py": "one contract"}  # file or file::function -> the reason why it may be longer
REAL_PATHS = ("/usr/bin/env", "/path/to/", "/proc/", "/usr/share/fonts/", "/dev/shm")


def sources(*folders: str) -> list[Path]:
    """Return the Python files; tasks/ is seen at its own place and not through densevit/tasks."""
    files = [p for folder in folders for p in (ROOT / folder).rglob("*.py")]
    return sorted(p for p in files if not p.is_relative_to(ROOT / "densevit" / "tasks"))


def part_of(path: Path) -> str:
    """Return the entry of ORDER that a file belongs to."""
    parts = path.relative_to(ROOT).parts
    return "tasks" if parts[0] == "tasks" else parts[1].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def imported_parts(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(path) if name.startswith("densevit.")} - {"__version__"}


@pytest.mark.parametrize("path", sources("densevit", "tasks"), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    own = part_of(path)
    if own == "__init__":
        assert imported_parts(path) == set(), "importing densevit must load nothing"
        return
    assert own in ORDER, f"add {own!r} to ORDER in {Path(__file__).name}"
    wrong = {name for name in imported_parts(path) - {own} if name not in ORDER[: ORDER.index(own)]}
    assert not wrong, f"{own} must not import {', '.join(sorted(wrong))}, which is below it in ORDER or missing there"


def test_no_import_is_relative() -> None:
    trees = {path: ast.parse(path.read_text()) for path in sources("densevit", "tasks", "tools")}
    relative = [p for p, tree in trees.items() for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level]
    assert relative == []


def test_tasks_do_not_import_each_other() -> None:
    tasks = {p.name for p in (ROOT / "tasks").iterdir() if p.is_dir()} - {"__pycache__"}
    for path in (ROOT / "tasks").glob("*/**/*.py"):
        own = path.relative_to(ROOT / "tasks").parts[0]
        wrong = [name for name in imported(path) if name.startswith("densevit.tasks.") and name.split(".")[2] != own]
        assert not wrong, f"{path} imports {wrong}"
    assert "segmentation" in tasks


def test_tasks_know_no_backbone() -> None:
    assert [p for p in sources("tasks") if "backbones" in imported_parts(p)] == []


def test_tools_hold_no_logic_that_others_import() -> None:
    assert [
        p for p in sources("densevit", "tasks", "tools", "tests") for n in imported(p) if n.startswith("tools.")
    ] == []


def test_names_say_what_is_inside() -> None:
    for path in sources("densevit", "tasks", "tools"):
        vague = VAGUE & set(path.relative_to(ROOT).with_suffix("").parts)
        assert not vague, f"{path.relative_to(ROOT)}: call it by what is in it"


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (
        n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def test_files_and_functions_are_short_or_have_a_reason() -> None:
    lengths: dict[str, tuple[int, int]] = {}
    for path in sources("densevit", "tasks", "tools", "tests"):
        name = path.relative_to(ROOT).as_posix()
        lengths[name] = len(path.read_text().splitlines()), MAX_LINES
        for function in functions(path):
            length = (function.end_lineno or 0) - function.lineno + 1
            lengths[f"{name}::{function.name}"] = length, MAX_FUNCTION
    long = {name: length for name, (length, limit) in lengths.items() if length > limit}
    assert long.keys() - LONGER.keys() == set(), f"split, or give the reason in LONGER: {long}"
    assert LONGER.keys() - long.keys() == set(), "no longer long: take out of LONGER"


def test_nothing_names_a_path_of_one_machine() -> None:
    texts = [
        p
        for p in ROOT.iterdir()
        if p.suffix in (".md", ".toml", ".yaml", ".py") or p.name in ("Makefile", ".gitignore")
    ]
    texts += [p for folder in ("docs", ".ci", ".github") for p in (ROOT / folder).rglob("*") if p.is_file()]
    texts += sources("densevit", "tasks", "tools", "tests", "configs", "benchmarks")
    absolute = re.compile(r"""(?:^|[\s"'`(=])(/[a-z]\w*/[\w./-]+)""")
    for path in texts:
        built = {"_build", "__pycache__"} & set(path.parts)
        if built or path.suffix in (".png", ".jpg", ".gif", ".svg") or path == Path(__file__):
            continue
        found = [name for name in absolute.findall(path.read_text()) if not name.startswith(REAL_PATHS)]
        assert not found, f"{path.relative_to(ROOT)} names {found}"


def test_monai_is_loaded_only_where_volumes_are_built() -> None:
    """It takes seconds, which no other task should wait for."""
    program = (
        "import sys, densevit.tasks, densevit.engine.runner, densevit.predictor\n"
        "from densevit.registry import DATASETS, HEADS, METRICS\n"
        "for kind in (DATASETS, HEADS, METRICS):\n"
        "    [kind.get(name) for name in kind.names()]\n"
        "assert 'monai' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
