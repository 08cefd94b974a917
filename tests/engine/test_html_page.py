"""Pages are well-formed, need nothing outside of them, and show any text as it is."""

import base64
import io
import re
from html.parser import HTMLParser

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
VOID = {"meta", "img"}


class Checker(HTMLParser):
    """Keeps the text and the attributes, and sees that tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text, self.attributes, self.tags = "", [], set[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parse(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    return checker


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_any_text_is_shown_as_it_is_and_does_nothing() -> None:
    parts = [
        heading(NASTY),
        paragraph(NASTY),
        html_table((NASTY, "b"), [(NASTY, 1.5)], NASTY),
        figures_in_rows([figure(png(2, 2), NASTY, NASTY), photograph(png(2, 2), NASTY, NASTY)]),
        folded(NASTY, NASTY),
    ]
    found = parse(page(NASTY, {"a": "\n".join(parts)}))
    assert "script" not in found.tags
    assert found.text.count(NASTY) == 2 + 2 + 3 + 2 + 2  # once more in the title than where it is given
    assert [value for name, value in found.attributes if name == "alt"] == [NASTY, NASTY]


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
    for html, kind, width in ((figure(wide, ""), "png", 2000), (photograph(wide, ""), "jpeg", 1600)):
        content = base64.b64decode(re.search(f'src="data:image/{kind};base64,([^"]*)"', html)[1])  # type: ignore[index]
        assert Image.open(io.BytesIO(content)).width == width
        assert f"width: {width}px" in html
    assert len(photograph(wide, "")) < len(figure(wide, "")) / 2
