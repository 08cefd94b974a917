"""Checks of blocks that need no run: options that commands know, configs, parts of configs."""

import ast
import contextlib
import io
import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

from densevit import commands, registry
from densevit.engine.config import RUN_KEYS, check_config, load_config
from densevit.errors import ConfigError
from tests.docs.blocks import Block
from tests.docs.commands import TOOLS, unknown_targets

_HEREDOC = re.compile(r"<<-?\s*'?(\w+)'?")
_REGISTRIES = [kind for kind in vars(registry).values() if isinstance(kind, registry.Registry)]
_REGISTRIES.sort(key=lambda kind: kind is registry.VOLUME_TRANSFORMS)  # which take long to import


PAGES_OF = {  # a word in the name of a page -> the config that its parts of configs belong to
    "classification": "cmt_s_imagenet",
    "detection": "demo/mask_rcnn_mit_b0_shapes",
    "video": "demo/timesformer_motion",
    "medical": "demo/unetr_phantom",
    "": "demo/segformer_b0_shapes",
}


def wrong_options(block: Block) -> Iterator[str]:
    """Yield what commands of ours in bash would not take, also where they are not run."""
    for line, words in _lines(block):
        call = _call_of(words)
        if words[:1] == ["make"] and (unknown := unknown_targets(words[1:])):
            yield f"{block.page}:{line}: the Makefile has no target {', '.join(unknown)}"
        if call is None:
            continue
        name, arguments = call
        if name.startswith("-"):
            continue
        if name not in commands.COMMANDS:
            yield f"{block.page}:{line}: densevit has no command {name}"
            continue
        printed = io.StringIO()
        try:
            with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
                commands.command(name, f"densevit {name}")[0].parse_intermixed_args(arguments)
        except SystemExit as end:
            if end.code:
                yield f"{block.page}:{line}: {printed.getvalue().strip().splitlines()[-1]}"


def _lines(block: Block) -> Iterator[tuple[int, list[str]]]:
    """Yield the words of each simple command of a block, and where its line begins."""
    lines = enumerate(block.text.splitlines(), start=block.line)
    for number, line in lines:
        while line.endswith("\\"):
            line = line[:-1] + next(lines)[1]
        if here := _HEREDOC.search(line):
            while next(lines)[1].strip() != here[1]:
                pass
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();<>|&"):
                yield number, words
                words = []
            else:
                words.append(word)


def _call_of(words: list[str]) -> tuple[str, list[str]] | None:
    """Return the command of ours that a line calls, itself or by another program, and its arguments."""
    for place, word in enumerate(words):
        if word == "densevit" and "install" not in words[:place]:
            name, *arguments = [*words[place + 1 :], ""]
            return name, arguments[:-1]
        if tool := re.fullmatch(r"tools/(\w+)\.py", word):
            return TOOLS.get(tool[1], tool[1].replace("_", "-")), words[place + 1 :]
    return None


def check_python(block: Block) -> None:
    """Raise unless a block is Python; where it is a part of a config, unless a config with it would be right.

    Raises:
        SyntaxError: It is no Python.
        ConfigError: A name or key in it is wrong.
    """
    tree = ast.parse(block.text)
    if block.name is not None or "coming_from" in block.page or not _is_part(tree):  # from where others have configs
        return
    values: dict[str, Any] = {}
    exec(compile(tree, str(block), "exec"), values)
    values.pop("__builtins__")
    for value in values.values():
        _check_types(value)
    if keys := values.keys() & RUN_KEYS:
        cfg = load_config(next(config for word, config in PAGES_OF.items() if word in block.page))
        cfg.merge_from_dict({key: values[key] for key in keys})
        check_config(cfg)


def _is_part(tree: ast.Module) -> bool:
    """Whether all that a block does is to give names to values that are written out."""
    nodes = list(ast.walk(tree))
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    plain = all(isinstance(call.func, ast.Name) and call.func.id in ("dict", "tuple", "list") for call in calls)
    return bool(calls) and plain and all(isinstance(statement, ast.Assign) for statement in tree.body)


def _check_types(value: Any) -> None:
    """Look for each dict with a type in the registries."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for child in children:
        _check_types(child)
    if isinstance(value, dict) and "type" in value:
        kind = next((kind for kind in _REGISTRIES if value["type"] in kind.names()), None)
        if kind is None:
            raise ConfigError(f"{value['type']!r} is registered nowhere")
        kind.check({key: each for key, each in value.items() if key != "priority"})


def check_json(block: Block) -> None:
    """Raise `ValueError` unless a block is JSON."""
    json.loads(block.text)
