"""The page of the commands and their options, from the parsers that read them."""

import argparse
from collections.abc import Iterator
from functools import partial

from registered import escaped, heading

from densevit.commands import COMMANDS, command


def page() -> str:
    """Return the page of all commands."""
    text = heading("Commands", "=")
    text += "``densevit NAME ...``, also as ``python -m densevit NAME ...``; each has a ``--help``.\n\n"
    for name, line in COMMANDS.items():
        parser, _ = command(name, f"densevit {name}")
        parser.formatter_class = partial(argparse.RawDescriptionHelpFormatter, width=88)  # not that of the terminal
        text += heading(name, "-") + f"{escaped(line[0].upper() + line[1:])}.\n\n"
        text += _literal(parser.format_usage().removeprefix("usage: ")) + _literal(parser.description or "")
        text += f".. program:: densevit {name}\n\n"
        text += "".join(_option(action, parser) for action in parser._actions if action.dest != "help")
    return text


def _literal(text: str) -> str:
    lines = [f"   {line}".rstrip() for line in text.strip().splitlines()]
    return "\n".join([".. code-block:: text", "", *lines, "", ""])


def _option(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    """Return the entry of one option or positional argument."""
    names = action.option_strings or [action.metavar if isinstance(action.metavar, str) else action.dest]
    value = " ".join(_value(action)) if action.option_strings else ""
    said = escaped(" ".join(parser._get_formatter()._expand_help(action).split()) if action.help else "")
    said = "\n".join(filter(None, [f"   {said}" if said else "", *(f"   {line}" for line in _facts(action))]))
    return f".. option:: {', '.join(f'{name} {value}'.strip() for name in names)}\n\n{said}\n\n"


def _value(action: argparse.Action) -> Iterator[str]:
    if action.nargs == 0:
        return
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if action.choices is not None:
        name = "{" + ",".join(map(str, action.choices)) + "}"
    yield {"?": f"[{name}]", "+": f"{name} ...", "*": f"[{name} ...]"}.get(str(action.nargs), name)


def _facts(action: argparse.Action) -> Iterator[str]:
    """Yield what the text of an option need not say."""
    if not action.option_strings and action.choices is not None:
        yield f"One of {', '.join(f'``{c}``' for c in action.choices)}."
    said = "default" in (action.help or "") or f"({action.default}" in (action.help or "")
    if action.default not in (None, False, argparse.SUPPRESS) and action.default != {} and not said:
        yield f"Default: ``{action.default}``."
