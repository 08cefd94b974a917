"""Tables for people: aligned text in the log file, drawn lines on a terminal."""

import math
from collections.abc import Iterable, Sequence

from mmengine.logging import MMLogger
from rich import box
from rich.table import Table
from rich.text import Text

Cell = str | int | float


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Return an aligned plain-text table; numbers go to the right, floats have four decimals, or two above 1."""
    lines, right = layout(columns, rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in lines
    ]
    rule = "  ".join("-" * w for w in widths)
    return "\n".join([title, rule, text[0], rule, *text[1:], rule])


def rich_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Table:
    """Return the same table for a rich console."""
    (names, *lines), right = layout(columns, rows)
    named = Text(title, style="bold")
    drawn = Table(title=named, title_justify="left", box=box.SIMPLE_HEAD, min_width=named.cell_len)  # or it is wrapped
    for i, (name, flush) in enumerate(zip(names, right, strict=True)):
        drawn.add_column(Text(name), justify="right" if flush else "left", no_wrap=i == 0, overflow="fold")
    for line in lines:
        drawn.add_row(*map(Text, line))
    return drawn


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Return the same table in Markdown, without its title."""
    (names, *lines), right = layout(columns, rows)
    rule = ["---:" if flush and lines else "---" for flush in right]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (names, rule, *lines))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Log a table through the current logger; a terminal's handler draws it (`densevit.engine.progress`)."""
    rows = list(rows)
    text = table(title, columns, rows)
    MMLogger.get_current_instance().info("\n%s", text, extra={"table": (title, columns, rows)})


def layout(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> tuple[list[list[str]], list[bool]]:
    """Return the lines of text, names first, and for each column whether it goes to the right."""
    rows = list(rows)
    texts = [_texts([row[i] for row in rows]) for i in range(len(columns))]
    lines = [list(columns), *(list(line) for line in zip(*texts, strict=True))]
    return lines, [all(map(_is_number, column)) for column in texts]


def _texts(cells: Sequence[Cell]) -> list[str]:
    """Return the text of the cells of a column, floats with the same number of decimals."""
    decimals = 2 if any(isinstance(cell, float) and abs(cell) > 1 for cell in cells) else 4
    return [_text(cell, decimals) for cell in cells]


def _text(cell: Cell, decimals: int) -> str:
    if isinstance(cell, float):
        return "-" if math.isnan(cell) else f"{cell:.{decimals}f}"
    return str(cell)


def _is_number(text: str) -> bool:
    return text == "-" or text.removeprefix("-").replace(".", "", 1).isdigit()
