"""The entries of what is registered: what ``type=`` in a config may be."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from arguments import is_ours

from densevit.registry import Registry, accepted_keys

ROOT = Path(__file__).parents[2]
Target = Callable[..., Any]


def heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n\n"


def escaped(text: str) -> str:
    """Return plain text as reStructuredText that looks like it."""
    return "".join(f"\\{c}" if c in "\\*`|_" else c for c in text)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table whose cells are reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (head, *rows):
        cells = (" ".join(cell.split()) for cell in row)
        lines += [f"   {'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(cells)]
    return "\n".join(lines) + "\n\n"


def source_of(target: Target) -> str:
    return Path(inspect.getsourcefile(target) or "").resolve().relative_to(ROOT).as_posix()


def entry(name: str, target: Target, line: str) -> str:
    """Return the entry of a class of ours; autodoc fills it from the docstring, see `reference.describe`."""
    path = f"{target.__module__}.{target.__qualname__}"
    return (
        heading(name, line) + f'``type="{name}"`` in {source_of(target)}\n\n.. autoclass:: {path}\n   :no-members:\n\n'
    )


def entries(registry: Registry, homes: tuple[str, ...], line: str) -> str:
    """Return the entries of the classes whose modules begin with one of ``homes``, each with its variants."""
    targets = {name: registry.get(name) for name in registry.names()}
    mine = {name: t for name, t in targets.items() if is_ours(t) and t.__module__.startswith(homes)}
    text = ""
    for name, target in sorted(mine.items(), key=lambda item: item[0].lower()):
        if inspect.isclass(target):
            text += entry(name, target, line)
            text += variants({n: t for n, t in mine.items() if not inspect.isclass(t) and _made_by(t) is target})
    return text


def variants(functions: dict[str, Target]) -> str:
    """Return the table of functions that construct one class: what they say, and what they pass."""
    if not functions:
        return ""
    rows = [(f"``{name}``", _summary(target), _passed(target)) for name, target in functions.items()]
    named = [(name, t) for name, t in functions.items() if _own_arguments(t)]
    text = "Variants take the same arguments:\n\n" + table(("type", "summary", "sets"), rows)
    for name, target in named:
        text += f".. autofunction:: {target.__module__}.{name}\n\n"
    return text


def others(registries: Iterable[Registry]) -> str:
    """Return the names that registries find in other libraries, with what they take, by library."""
    homes: dict[str, dict[str, Target]] = {}
    for registry in registries:
        for name in registry.names():
            target = registry.get(name)
            if not is_ours(target):
                homes.setdefault(_library(target), {})[name] = target
    text = ""
    for home, targets in sorted(homes.items()):
        text += heading(f"From {home}", "-")
        text += "".join(f"- ``{_call(name, t)}``\n" for name, t in sorted(targets.items())) + "\n"
    return text


def _made_by(target: Target) -> Any:
    return inspect.signature(target).return_annotation


def _summary(target: Target) -> str:
    return (inspect.getdoc(target) or "").split("\n\n")[0]


def _own_arguments(target: Target) -> list[str]:
    return [p.name for p in inspect.signature(target).parameters.values() if p.kind is not p.VAR_KEYWORD]


def _passed(target: Target) -> str:
    """Return the arguments that a variant passes to its class, which is not constructed."""
    passed: dict[str, Any] = {}
    with patch.object(_made_by(target), "__init__", lambda self, *args, **options: passed.update(options)):
        target()
    return ", ".join(f"``{key}={value!r}``" for key, value in passed.items()) or "the defaults"


def _library(target: Target) -> str:
    """Return the package by whose documentation a target is found."""
    top = target.__module__.split(".")[0]
    return {"torchvision": "torchvision.transforms.v2", "monai": "monai.transforms", "torch": "torch.optim"}.get(
        top, top
    )


def _call(name: str, target: Target) -> str:
    """Return a name with what it takes: defaults where they are short."""
    keys = accepted_keys(target)
    return f"{name}({', '.join(_parameters(target, keys))})"


def _parameters(target: Target, keys: set[str] | None) -> Iterator[str]:
    try:
        parameters = inspect.signature(target).parameters.values()
    except ValueError:
        return
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = repr(parameter.default)
        long = parameter.default is parameter.empty or len(default) > 24 or default.startswith("<")
        yield parameter.name if long else f"{parameter.name}={default}"
    if keys is None:
        yield "..."
