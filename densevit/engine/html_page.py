"""Pages of HTML in one file: tables, pictures and folded text, which open without a network and print."""

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from PIL import Image

from densevit.tables import Cell, layout

PICTURE_WIDTH, JPEG_QUALITY = 1400, 80  # of photographs
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 1120px; margin: 0 auto;
  padding: 24px; }
h1 { font-size: 1.7em; margin: 0 0 .3em; }
h2 { font-size: 1.35em; margin: 2em 0 .5em; padding-bottom: .2em; border-bottom: 2px solid #0072b2; }
h3 { font-size: 1.1em; margin: 1.5em 0 .5em; }
p { margin: .5em 0; }
table { border-collapse: collapse; margin: .5em 0 1em; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .2em 0; }
th, td { padding: .2em .5em; text-align: left; vertical-align: top; border-bottom: 1px solid #ddd; }
th { border-bottom: 1px solid #777; }
td:last-child { overflow-wrap: anywhere; }
.right { text-align: right; }
img { max-width: 100%; height: auto; }
figure { margin: 0; max-width: 100%; }
figcaption { font-size: .85em; color: #444; overflow-wrap: anywhere; }
.samples { display: flex; flex-wrap: wrap; gap: 20px; }
pre { font: 13px/1.4 ui-monospace, monospace; background: #f5f5f5; padding: 12px; overflow-x: auto; }
summary { cursor: pointer; font-weight: 600; }
@media print { body { max-width: none; padding: 0; font-size: 11pt; } figure, tr { break-inside: avoid; }
  pre { white-space: pre-wrap; } }
"""
SECTION = re.compile(r'<section id="(\w+)">\n(.*?)\n</section><!-- \1 -->', re.DOTALL)


def page(title: str, sections: Mapping[str, str]) -> str:
    """Return a page of sections, each of HTML, under names that `sections_of` finds them by."""
    body = "\n".join(f'<section id="{name}">\n{html}\n</section><!-- {name} -->' for name, html in sections.items())
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f"{body}\n</body>\n</html>\n"
    )


def sections_of(text: str) -> dict[str, str]:
    """Return the sections of a page that `page` made, and of other text none."""
    return dict(SECTION.findall(text))


def heading(text: str, level: int = 2) -> str:
    """Return a heading."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """Return a paragraph."""
    return f"<p>{escape(text)}</p>"


def html_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], title: str = "") -> str:
    """Return a table with numbers to the right; without a head where no column has a name."""
    (names, *lines), right = layout(columns, rows)
    head = f"<thead>{_row(names, right, 'th')}</thead>\n" if any(columns) else ""
    caption = f"<caption>{escape(title)}</caption>\n" if title else ""
    body = "\n".join(_row(line, right, "td") for line in lines)
    return f"<table>\n{caption}{head}<tbody>\n{body}\n</tbody>\n</table>"


def _row(cells: Sequence[str], right: Sequence[bool], tag: str) -> str:
    flush = [' class="right"' if is_number else "" for is_number in right]
    return "<tr>" + "".join(f"<{tag}{f}>{escape(c)}</{tag}>" for c, f in zip(cells, flush, strict=True)) + "</tr>"


def figure(png: bytes, alt: str, caption: str = "") -> str:
    """Return a picture, encoded as PNG, within the page; lines of a plot stay sharp."""
    with Image.open(io.BytesIO(png)) as picture:
        return _figure(png, "png", picture.width, alt, caption)


def photograph(png: bytes, alt: str, caption: str = "") -> str:
    """Return a picture within the page in fewer bytes: a JPEG of limited width."""
    with Image.open(io.BytesIO(png)) as picture:
        picture.thumbnail((PICTURE_WIDTH, PICTURE_WIDTH))
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "JPEG", quality=JPEG_QUALITY)
    return _figure(buffer.getvalue(), "jpeg", picture.width, alt, caption)


def _figure(content: bytes, kind: str, width: int, alt: str, caption: str) -> str:
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure style="width: {width}px"><img src="{source}" alt="{escape(alt)}">{text}</figure>'


def figures_in_rows(figures: Iterable[str]) -> str:
    """Return figures side by side, as many in a row as there is room for."""
    return '<div class="samples">\n' + "\n".join(figures) + "\n</div>"


def folded(title: str, text: str) -> str:
    """Return text of a fixed width, which a click on the title shows."""
    return f"<details><summary>{escape(title)}</summary>\n<pre>{escape(text)}</pre></details>"
