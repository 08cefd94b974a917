"""Tables in HTML."""

from collections.abc import Sequence
from html import escape

Colour = Sequence[int]


def html_table(columns: Sequence[str], rows: Sequence[Sequence[str]], colours: Sequence[Colour] | None = None) -> str:
    """Return a table; columns of which every cell is a number go to the right.

    Args:
        columns: Their names.
        rows: Texts of the cells.
        colours: An (R, G, B) for each row, shown before its first cell.
    """
    right = [bool(rows) and all(row[i].lstrip("< ")[:1].isdigit() for row in rows) for i in range(len(columns))]
    head = "".join(_cell("th", text, flush) for text, flush in zip(columns, right, strict=True))
    body = ""
    for number, row in enumerate(rows):
        cells = [_cell("td", text, flush) for text, flush in zip(row, right, strict=True)]
        if colours is not None:
            cells[0] = cells[0].replace(">", f">{_swatch(colours[number])}", 1)
        body += f"<tr>{''.join(cells)}</tr>"
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def paragraph(text: str, kind: str = "note") -> str:
    """Return a line of text; ``kind`` is "note" or "problem"."""
    role = ' role="alert"' if kind == "problem" else ""
    return f'<p class="{kind}"{role}>{escape(text)}</p>'


def _cell(tag: str, text: str, right: bool) -> str:
    kind = ' class="right"' if right else ""
    return f"<{tag}{kind}>{escape(text)}</{tag}>"


def _swatch(colour: Colour) -> str:
    return f'<span class="swatch" style="background: rgb({colour[0]}, {colour[1]}, {colour[2]})"></span>'
