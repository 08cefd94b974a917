"""Read from the source what the program may tell its users: errors, warnings, lines of the log.

What a message is made of at run time is a gap, `…`.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[2]
GAP = "…"
CALLS = {"warn", "_warn", "warning", "info", "error"}  # of loggers, warnings, parsers and functions that pass it on
ERRORS = {"DensevitError", "_Unusable", "ValueError"}  # those of ours derive from the first
PRINTED = ("skipped", "passed over", "interrupted", "a path of this machine")  # of all lines that are printed
WORD = re.compile(r"\w{2}")
MAX_WAYS = 64
Names = Mapping[str, Sequence[ast.expr]]  # what is assigned to each


@dataclass
class Source:
    """All modules, and what their names stand for."""

    modules: dict[str, ast.Module]
    constants: dict[str, list[ast.expr]] = field(default_factory=lambda: defaultdict(list))
    functions: dict[str, dict[str, ast.FunctionDef]] = field(default_factory=lambda: defaultdict(dict))
    errors: set[str] = field(default_factory=lambda: set(ERRORS))


def read_source() -> Source:
    """Parse all modules; tasks/ is seen at its own place and not through densevit/tasks."""
    files = [path for folder in ("densevit", "tasks", "tools") for path in sorted((ROOT / folder).rglob("*.py"))]
    own = [path for path in files if not path.is_relative_to(ROOT / "densevit" / "tasks")]
    source = Source({str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in own})
    bases: dict[str, set[str]] = {}
    for path, tree in source.modules.items():
        for node in tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    source.constants[name].append(value)
        for each in ast.walk(tree):
            if isinstance(each, ast.FunctionDef):
                source.functions[each.name][path] = each
            elif isinstance(each, ast.ClassDef):
                bases[each.name] = {base.id for base in each.bases if isinstance(base, ast.Name)}
    while more := {name for name, of in bases.items() if of & source.errors} - source.errors:
        source.errors |= more
    return source


class Texts:
    """What expressions may be, with a gap for each part that is known at run time only.

    Args:
        source: Whose constants are known.
        path: Of the module with the expressions.
        functions: Look into functions for what they return, instead of leaving a gap.
    """

    def __init__(self, source: Source, path: str, functions: bool = False) -> None:
        self.source, self.path, self.functions = source, path, functions

    def of(self, node: ast.expr, local: Names) -> list[str]:
        """Return the texts of an expression, in which ``local`` names stand for others."""
        match node:
            case ast.Constant(value=str(text)):
                return [text]
            case ast.JoinedStr(values=parts):
                return self._joined(parts, local)
            case ast.FormattedValue(value=value):
                return self.of(value, local)
            case ast.BinOp(op=ast.Add()):
                return self._joined([node.left, node.right], local)
            case ast.IfExp(body=one, orelse=other):
                return self._any([one, other], local)
            case ast.Name(id=name) if name in local:
                return self._any(local[name], {key: value for key, value in local.items() if key != name})
            case ast.Name(id=name) if len(self.source.constants[name]) == 1:
                return self.of(self.source.constants[name][0], {})
            case ast.Call(func=ast.Attribute(value=value, attr="rstrip")):
                return self.of(value, local)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if self.functions:
                return self._returned(name)
        return [GAP]

    def _any(self, values: Sequence[ast.expr], local: Names) -> list[str]:
        texts = list(dict.fromkeys(text for value in values for text in self.of(value, local)))
        return [GAP] if "" in texts else texts  # a part that may be missing

    def _joined(self, parts: list[ast.expr], local: Names) -> list[str]:
        ways = ["".join(way) for way in product(*(self.of(part, local) for part in parts))]
        return ways if len(ways) <= MAX_WAYS else [GAP]

    def _returned(self, name: str) -> list[str]:
        homes = self.source.functions[name]
        path = self.path if self.path in homes or len(homes) != 1 else next(iter(homes))
        if path not in homes:
            return [GAP]
        function = homes[path]
        local = assigned(function)
        values = [node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value]
        texts = [text for value in values for text in told(Texts(self.source, path), value, local)]
        return list(dict.fromkeys(texts)) or [GAP]


def told(texts: Texts, node: ast.expr, local: Names) -> list[str]:
    """Return the texts of an expression; only where they are nothing but gaps, functions are looked into."""
    found = [text for text in texts.of(node, local) if WORD.search(text)]
    deeper = Texts(texts.source, texts.path, functions=True)
    return found or [text for text in deeper.of(node, local) if WORD.search(text)]


def assigned(function: ast.AST) -> Names:
    """Return what local names stand for: all that is assigned to each somewhere."""
    found: dict[str, list[ast.expr]] = defaultdict(list)
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                found[name].append(value)
            case ast.NamedExpr(target=ast.Name(id=name), value=value):
                found[name].append(value)
            case ast.AugAssign(target=ast.Name(id=name), value=value):
                found[name].append(value)
    return found


def normal(text: str) -> str:
    """Return a message on one line, with neighbouring gaps as one, and without gaps and full stops at its end."""
    return re.sub(rf"{GAP}(\s*{GAP})*", GAP, " ".join(text.split())).rstrip(f" .{GAP}")


def calls(tree: ast.AST, local: Names) -> Iterator[tuple[ast.Call, Names]]:
    """Return each call with the local names of the function around it."""
    for node in ast.iter_child_nodes(tree):
        inner = assigned(node) if isinstance(node, ast.FunctionDef) else local
        if isinstance(node, ast.Call):
            yield node, inner
        yield from calls(node, inner)


def tells(call: ast.Call, source: Source) -> bool:
    """Say whether a call makes or passes on a message."""
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in source.errors | CALLS | {"print"}
        case ast.Call(func=ast.Name(id="type")):  # of the kind of an error at hand
            return True
    return False


def messages() -> dict[str, str]:
    """Return all messages of the source, and where each is."""
    source = read_source()
    found: dict[str, str] = {}
    for path, tree in source.modules.items():
        for call, local in calls(tree, {}):
            if call.args and tells(call, source):
                printed = ast.unparse(call.func).endswith("print")
                for text in map(normal, told(Texts(source, path), call.args[0], local)):
                    if not printed or text.startswith(PRINTED):
                        found.setdefault(text, f"{path}:{call.lineno}")
    return found
