"""Links of pages lead to the same place on the site and in the repository."""

import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType

Extension = Callable[[str], ModuleType]
DOCS = Path(__file__).parents[2] / "docs"


def test_links_to_files_of_the_root_lead_to_their_pages(extension: Extension) -> None:
    moved = extension("links").moved
    page = DOCS / "video.md"
    assert moved("[how](../README.md#use)", page, page) == "[how](project/readme.markdown#use)"
    assert moved("[a](backbones.md) [b](../configs/unetr_btcv.py)", page, page) == (
        "[a](backbones.md) [b](../configs/unetr_btcv.py)"
    )
    assert moved("see [`configs/`](../configs)", page, page) == "see `configs/`", "a folder is no page"
    deeper = DOCS / "reference" / "config.md"
    assert moved("[how](../../SECURITY.md)", deeper, deeper) == "[how](../project/security.markdown)"


def test_links_of_the_root_are_right_from_their_new_place(extension: Extension) -> None:
    links = extension("links")
    text = links.moved("[a](docs/video.md) ![b](docs/pictures/clips.png) [c](CHANGELOG.md)", *readme(links))
    assert text == "[a](../video.md) ![b](../pictures/clips.png) [c](changelog.markdown)"


def test_neither_code_nor_the_network_is_taken_for_a_link(extension: Extension) -> None:
    text = 'names["a"](image) [b](https://example.org/README.md) [c](#part) [d](no_such_page.md)'
    page = DOCS / "video.md"
    assert extension("links").moved(text, page, page) == text


def test_pages_that_nobody_writes_any_more_are_deleted(tmp_path: Path, extension: Extension) -> None:
    write = extension("pages").write
    for name in ("old.rst", "kept.md"):
        (tmp_path / name).write_text("text")
    write({tmp_path / "new.rst": "text"})
    assert {path.name for path in tmp_path.iterdir()} == {"new.rst", "kept.md"}
    before = (tmp_path / "new.rst").stat().st_mtime_ns
    write({tmp_path / "new.rst": "text"})
    assert (tmp_path / "new.rst").stat().st_mtime_ns == before, "written again, it would be built again"


def test_each_page_stands_in_one_list_of_pages() -> None:
    pages = [p.relative_to(DOCS).with_suffix("").as_posix() for p in DOCS.rglob("*.md") if "_build" not in p.parts]
    named = []
    for index in ("index.md", "reference/index.md"):
        folder = Path(index).parent
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```", (DOCS / index).read_text(), re.MULTILINE | re.DOTALL):
            entries = [line for line in block.splitlines() if line and not line.startswith(":")]
            patterns = [(folder / entry).as_posix() for entry in entries]
            named += [p for pattern in patterns for p in pages if fnmatchcase(p, pattern)]
    assert sorted(named) == sorted(set(pages) - {"index"}), "name new pages in docs/index.md"


def readme(links: ModuleType) -> tuple[Path, Path]:
    return next((file, page) for file, page in links.PROJECT.items() if file.stem == "README")
