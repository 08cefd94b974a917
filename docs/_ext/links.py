"""Links that lead out of docs/ work on the site as they do in the repository.

README, CHANGELOG, CONTRIBUTING and SECURITY become pages of the site, below project/. Other files of the repository
that pages link to, configs for instance, can be downloaded.
"""

import os
import re
from pathlib import Path
from typing import Any

from pages import write
from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
PROJECT = {
    DOCS.parent / f"{name}.md": DOCS / "project" / f"{name.lower()}.markdown"
    for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")
}
_LINK = re.compile(r"\[([^\[\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def moved(text: str, file: Path, page: Path) -> str:
    """Return the Markdown of ``file`` with links as they must be on ``page``, which may be another file.

    Of links to folders, which are no pages, the text is left.
    """

    def link(match: re.Match[str]) -> str:
        path = (file.parent / match[2]).resolve()
        if not path.exists():
            return match[0]  # code that looks like a link, or one that the build will name
        if path.is_dir():
            return match[1]
        target = Path(os.path.relpath(PROJECT.get(path, path), page.parent)).as_posix()
        return f"[{match[1]}]({target}{match[3] or ''})"

    return _LINK.sub(link, text)


def copy_project(app: Sphinx) -> None:
    """Write the pages that are files of the root."""
    write({page: moved(file.read_text(encoding="utf-8"), file, page) for file, page in PROJECT.items()})


def mend_links(app: Sphinx, name: str, source: list[str]) -> None:
    """Point links of a page of docs/ to the files of the root to the copies."""
    page = Path(app.env.doc2path(name))
    if page.suffix == ".md":
        source[0] = moved(source[0], page, page)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", copy_project)
    app.connect("source-read", mend_links)
    return {"parallel_read_safe": True}
