"""What the arguments of a registered class are: types and defaults from the signatures, words from the docstrings."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_SECTION = re.compile(r"^Args:\n((?:    .*\n|\n)+)", re.MULTILINE)
_OTHERS = re.compile(r"^(Attributes|Raises|Returns):$", re.MULTILINE)
_ARGUMENT = re.compile(r"^    \*{0,2}(\w+):", re.MULTILINE)
_MODULES = re.compile(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z])")


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument; ``text`` is empty where no docstring of ours says what it is."""

    name: str
    type: str
    default: str | None
    text: str


def words(doc: str | None) -> dict[str, str]:
    """Return the "Args" of a docstring by name, each as one line."""
    section = _SECTION.search(inspect.cleandoc(doc or "") + "\n")
    if section is None:
        return {}
    _, *parts = _ARGUMENT.split(section[1])
    return {name: " ".join(text.split()) for name, text in zip(parts[::2], parts[1::2], strict=True)}


def with_fields(doc: str, fields: str) -> str:
    """Return a docstring with fields of reStructuredText for its "Args"; if it has none, before its other sections."""
    doc = doc.rstrip() + "\n"
    section = _SECTION.search(doc) or _OTHERS.search(doc)
    start, end = section.span() if section else (len(doc), len(doc))
    if section and section.re is _OTHERS:
        end = start
    return f"{doc[:start]}\n{fields}\n{doc[end:]}"


def is_ours(target: Callable[..., Any]) -> bool:
    return target.__module__.split(".")[0] == "densevit"


def arguments(target: Callable[..., Any]) -> list[Argument]:
    """Return what ``target`` is configured by; where it hands on others by keyword, those of its bases too.

    Arguments that a library takes from such keywords are not listed, but the keywords, by the name that they have.
    """
    if not inspect.isclass(target):
        return [_argument(p, words(target.__doc__)) for p in inspect.signature(target).parameters.values()]
    texts: dict[str, str] = {}
    for base in reversed(target.__mro__):
        if is_ours(base):
            texts |= words(base.__dict__.get("__doc__"))
    found: dict[str, Argument] = {}
    for base in target.__mro__:
        if "__init__" not in base.__dict__ or base is object:
            continue
        parameters = list(inspect.signature(base.__dict__["__init__"]).parameters.values())[1:]
        more = [p for p in parameters if p.kind is p.VAR_KEYWORD]
        found = {p.name: _argument(p, texts) for p in parameters if p not in more} | found
        if not more or not is_ours(base):
            break
        if not any(is_ours(b) and "__init__" in b.__dict__ for b in target.__mro__[target.__mro__.index(base) + 1 :]):
            return [*found.values(), _argument(more[0], texts)]
    return list(found.values())


def _argument(parameter: inspect.Parameter, texts: dict[str, str]) -> Argument:
    empty = parameter.empty
    kind = "" if parameter.annotation is empty else inspect.formatannotation(parameter.annotation)
    default = None if parameter.default is empty else _short(parameter.default)
    return Argument(parameter.name, _MODULES.sub("", kind), default, texts.get(parameter.name, ""))


def _short(value: Any) -> str:
    return value.__qualname__ if inspect.isroutine(value) or inspect.isclass(value) else repr(value)
