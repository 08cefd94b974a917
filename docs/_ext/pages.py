"""Files that the build writes before it reads."""

from collections.abc import Mapping
from pathlib import Path


def write(pages: Mapping[Path, str]) -> None:
    """Write pages, where they have changed, and delete other files of their suffixes in their folders."""
    for folder, suffix in {(path.parent, path.suffix) for path in pages}:
        folder.mkdir(exist_ok=True)
        for path in set(folder.glob(f"*{suffix}")) - pages.keys():
            path.unlink()
    for path, text in pages.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
