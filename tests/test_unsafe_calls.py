"""No source calls what could run code out of a file or a string."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "configs", "densevit", "tasks", "tests", "tools")

# Whole modules end in a dot.
UNSAFE = (
    "eval",
    "exec",
    "compile",
    "cloudpickle.",
    "dill.",
    "joblib.load",
    "marshal.",
    "mmengine.fileio.load",
    "mmengine.load",
    "mmengine.runner.load_checkpoint",
    "mmengine.runner.CheckpointLoader.load_checkpoint",
    "mmengine.utils.get_object_from_string",
    "mmengine.utils.import_modules_from_strings",
    "os.popen",
    "os.system",
    "pandas.read_pickle",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "shelve.",
    "torch.distributed.checkpoint.FileSystemReader",  # which unpickles its index: a subclass must not
    "torch.hub.",
    "torch.jit.load",
    "torch.package.",
    "yaml.",
)
# Values that a keyword must not have, nor a value that is no constant; and those that calls must have.
FORBIDDEN_KEYWORDS = {"allow_pickle": True, "shell": True, "weights_only": False}
REQUIRED_KEYWORDS = {"torch.load": ("weights_only", True), ".extractall": ("filter", "data")}
ALLOWED = {
    ("tests/test_security.py", "pickle.loads"): "shows that an attack works where nothing guards against it",
    ("tests/test_security.py", "mmengine.fileio.load"): "likewise",
    **{
        (f"tests/docs/{name}.py", call): "runs what our own pages show"
        for name in ("commands", "reading", "sandbox")
        for call in ("exec", "compile")
    },
}


def unsafe(source: str) -> Iterator[tuple[str, int]]:
    """Yield the name and the line of each unsafe call, and of each unpickler that may make anything."""
    tree = ast.parse(source)
    imported = dict(_imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any(_name(b, imported).endswith("pickle.Unpickler") for b in node.bases):
            if not any(isinstance(part, ast.FunctionDef) and part.name == "find_class" for part in node.body):
                yield f"class {node.name}", node.lineno
        elif isinstance(node, ast.Call) and not _copies(node, imported):
            name = _name(node.func, imported)
            if any(name == bad or (bad.endswith(".") and name.startswith(bad)) for bad in UNSAFE):
                yield name, node.lineno
            given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
            if any(key in given and given[key] in (bad, None) for key, bad in FORBIDDEN_KEYWORDS.items()):
                yield name, node.lineno
            for call, (key, value) in REQUIRED_KEYWORDS.items():
                if (name == call or (call.startswith(".") and name.endswith(call))) and given.get(key) != value:
                    yield name, node.lineno


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield what a name of the module stands for, at whatever depth it is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname, alias.name) for alias in node.names if alias.asname)
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _name(node: ast.AST, imported: dict[str, str]) -> str:
    """Return the dotted name of what is called; of a method of a value only that of the method, after a dot."""
    if isinstance(node, ast.Name):
        return imported.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value, imported)}.{node.attr}"
    return ""


def _copies(call: ast.Call, imported: dict[str, str]) -> bool:
    """Say whether it is ``pickle.loads(pickle.dumps(...))``, of what is in memory."""
    inner = call.args[0] if call.args else None
    return (
        _name(call.func, imported) == "pickle.loads"
        and isinstance(inner, ast.Call)
        and _name(inner.func, imported) == "pickle.dumps"
    )


@pytest.mark.parametrize(
    "line",
    [
        "import torch; torch.load(path)",
        "import torch; torch.load(path, weights_only=False)",
        "import torch; torch.load(path, weights_only=trusted)",
        "from torch import load; load(path, map_location='cpu')",
        "import numpy as np; np.load(path, allow_pickle=True)",
        "import numpy; numpy.load(path, None, trusted, allow_pickle=trusted)",
        "import pickle; pickle.load(file)",
        "from pickle import loads as read; read(data)",
        "import pickle as p; p.Unpickler(file).load()",
        "import pickle\nclass Reader(pickle.Unpickler):\n    def persistent_load(self, pid): ...",
        "import yaml; yaml.load(text)",
        "import shelve; shelve.open(path)",
        "from joblib import load; load(path)",
        "eval(text)",
        "exec(text)",
        "import os; os.system(command)",
        "import subprocess; subprocess.run(command, shell=True)",
        "import tarfile; tarfile.open(path).extractall(folder)",
        "import mmengine; mmengine.load(path)",
        "from mmengine.runner import load_checkpoint; load_checkpoint(model, path)",
        "from torch.distributed.checkpoint import FileSystemReader; FileSystemReader(path)",
    ],
)
def test_an_unsafe_call_is_found(line: str) -> None:
    assert list(unsafe(line)), line


@pytest.mark.parametrize(
    "line",
    [
        "import torch; torch.load(path, weights_only=True)",
        "import numpy as np; np.load(path); np.load(path, allow_pickle=False)",
        "import pickle; pickle.dumps(x); pickle.loads(pickle.dumps(x))",
        "import pickle\nclass Reader(pickle.Unpickler):\n    def find_class(self, module, name): ...",
        "import re, torch; re.compile(text); torch.compile(model); model.eval()",
        "import tarfile; tarfile.open(path).extractall(folder, filter='data')",
        "import subprocess; subprocess.run(['git', 'log'])",
    ],
)
def test_a_safe_call_is_not(line: str) -> None:
    assert not list(unsafe(line)), line


def test_no_source_makes_an_unsafe_call() -> None:
    paths = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")]
    sources = {p.relative_to(ROOT).as_posix(): p.read_text() for p in [*paths, ROOT / "setup.py"]}
    assert len(sources) > 100
    found = {(path, name): line for path, text in sources.items() for name, line in unsafe(text)}
    wrong = [f"{path}:{line}: {name}" for (path, name), line in found.items() if (path, name) not in ALLOWED]
    assert not wrong, f"these could run code out of a file, see SECURITY.md: {wrong}"
    assert ALLOWED.keys() <= found.keys(), "no longer called: take out of ALLOWED"
