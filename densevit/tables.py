"""Tables for people: aligned text in the log file, drawn lines on a terminal."""

import math
from collections.abc import Iterable, Sequence

from mmengine.logging import MMLogger
from rich import box
from rich.table import Table
from rich.text import Text

Cell = str | int | float


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Return an aligned plain-text table; columns of numbers go to the right, floats have four decimals."""
    lines, right = _layout(columns, rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in lines
    ]
    rule = "  ".join("-" * w for w in widths)
    return "\n".join([title, rule, text[0], rule, *text[1:], rule])


def rich_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Table:
    """Return the same table for a rich console."""
    (names, *lines), right = _layout(columns, rows)
    drawn = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD)
    for name, flush in zip(names, right, strict=True):
        drawn.add_column(Text(name), justify="right" if flush else "left")
    for line in lines:
        drawn.add_row(*map(Text, line))
    return drawn


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Log a table through the current logger; a terminal's handler draws it (`densevit.engine.progress`)."""
    rows = list(rows)
    text = table(title, columns, rows)
    MMLogger.get_current_instance().info("\n%s", text, extra={"table": (title, columns, rows)})


def _layout(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> tuple[list[list[str]], list[bool]]:
    """Return the lines of text, names first, and for each column whether it goes to the right."""
    lines = [list(columns), *([_text(cell) for cell in row] for row in rows)]
    right = [all(_is_number(line[i]) for line in lines[1:]) for i in range(len(columns))]
    return lines, right


def _text(cell: Cell) -> str:
    if isinstance(cell, float):
        return "-" if math.isnan(cell) else f"{cell:.4f}"
    return str(cell)


def _is_number(text: str) -> bool:
    return text == "-" or text.removeprefix("-").replace(".", "", 1).isdigit()
