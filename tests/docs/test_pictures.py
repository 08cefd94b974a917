"""Pictures of the pages are made by a script that runs, are there, and are small."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = ("_build", "project")  # folders of the site
LIMIT = 150_000  # bytes
MADE = ("tour_", "own_data")  # by the script


def shown() -> set[Path]:
    """Return the pictures that pages show."""
    pages = [*ROOT.glob("*.md"), *(p for p in DOCS.rglob("*.md") if p.relative_to(DOCS).parts[0] not in GENERATED)]
    found = {page: re.findall(r"!\[[^\]]*\]\(([^)]+\.png)\)", page.read_text()) for page in pages}
    return {(page.parent / name).resolve() for page, names in found.items() for name in names}


def test_pictures_that_pages_show_are_there_and_no_others() -> None:
    assert shown() == set((DOCS / "pictures").glob("*.png"))


def test_pictures_are_small() -> None:
    large = [path.name for path in shown() if path.name.startswith(MADE) and path.stat().st_size > LIMIT]
    assert not large


@pytest.mark.slow
def test_the_script_makes_the_pictures_of_the_tours_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["make.py", "--quick", "--out", str(tmp_path / "pictures")])
    runpy.run_path(str(DOCS / "pictures" / "make.py"), run_name="__main__")
    made = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert made == {path.name for path in shown() if path.name.startswith(MADE)}
    for path in (tmp_path / "pictures").iterdir():
        with Image.open(path) as picture:
            assert picture.width <= 900
            assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 10
