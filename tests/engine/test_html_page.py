"""Pages are well-formed, need nothing outside of them, and show any text as it is."""

import base64
import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from densevit.engine.html_page import (
    figure,
    figures_in_rows,
    folded,
    heading,
    html_table,
    page,
    paragraph,
    photograph,
    sections_of,
)

NASTY = '<script>alert("1")</script> & </section><!-- a -->'


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_any_text_is_shown_as_it_is_and_does_nothing(parse_page: Callable[[str], Any]) -> None:
    parts = [
        heading(NASTY),
        paragraph(NASTY),
        html_table((NASTY, "b"), [(NASTY, 1.5)], NASTY),
        figures_in_rows([figure(png(2, 2), NASTY, NASTY), photograph(png(2, 2), NASTY, NASTY)]),
        folded(NASTY, NASTY),
    ]
    found = parse_page(page(NASTY, {"a": "\n".join(parts)}))
    assert found.text.count(NASTY) == 2 + 1 + 1 + 3 + 2 + 2  # the title is in two places
    assert found.alternatives == [NASTY, NASTY]


def test_a_page_gives_its_sections_back() -> None:
    sections = {"a": paragraph(NASTY), "b": "<p>one</p>\n<p>two</p>"}
    assert sections_of(page("title", sections)) == sections
    assert sections_of("<html>of something else</html>") == {}


def test_numbers_are_to_the_right_of_their_columns() -> None:
    table = html_table(("class", "IoU"), [("sky", 0.5), ("road", float("nan"))])
    assert '<th>class</th><th class="right">IoU</th>' in table
    assert '<td>sky</td><td class="right">0.5000</td>' in table
    assert '<td class="right">-</td>' in table
    assert "<thead>" not in html_table(("", ""), [("a", "b")])


def test_pictures_are_within_the_page_photographs_in_fewer_bytes() -> None:
    wide = png(2000, 50)
    for html, kind, width in ((figure(wide, ""), "png", 2000), (photograph(wide, ""), "jpeg", 1400)):
        content = base64.b64decode(re.search(f'src="data:image/{kind};base64,([^"]*)"', html)[1])  # type: ignore[index]
        assert Image.open(io.BytesIO(content)).width == width
        assert f"width: {width}px" in html
    assert len(photograph(wide, "")) < len(figure(wide, "")) / 2
