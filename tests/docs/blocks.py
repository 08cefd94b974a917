"""The fenced blocks of the pages: what they hold, where they stand, and what the convention says is done with them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
    if path.relative_to(ROOT).parts[:2] not in {("docs", "_build"), ("docs", "project")}  # made by make docs
]
_FENCE = re.compile(r"^( *)(`{3,}|~{3,})\s*(\S*)")
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
_NAME = re.compile(r"# ([\w./-]+\.py)\s*")


@dataclass(frozen=True)
class Block:
    """What stands between two fences of a page."""

    page: str
    line: int  # of its first line
    language: str
    text: str
    reason: str | None  # why it is not run

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def name(self) -> str | None:
        """The file that it is written to, if its first line names one."""
        found = _NAME.fullmatch(self.text.partition("\n")[0]) if self.language == "python" else None
        return found and found[1]

    @property
    def is_config(self) -> bool:
        """Whether it is a file that is read as a config."""
        return self.name is not None and bool(re.search(r"^(_base_|model) *=", self.text, re.MULTILINE))


def read_blocks(page: str) -> list[Block]:
    """Return the blocks of a page, a path from the root of the repository on."""
    return parse_blocks((ROOT / page).read_text(encoding="utf-8"), page)


def parse_blocks(text: str, page: str) -> list[Block]:
    """Return the blocks of a text.

    Raises:
        ValueError: A fence is not closed.
    """
    blocks, lines = [], text.splitlines()
    number = 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if fence is None:
            number += 1
            continue
        marker = _NOT_RUN.fullmatch(lines[number - 1].strip()) if number else None
        start = number = number + 1
        while number < len(lines) and not re.fullmatch(rf" *{fence[2]}{fence[2][0]}* *", lines[number]):
            number += 1
        if number == len(lines):
            raise ValueError(f"{page}:{start}: the block is not closed")
        inside = [line.removeprefix(fence[1]) for line in lines[start:number]]
        content = "".join(f"{line}\n" for line in inside)
        blocks.append(Block(page, start + 1, fence[3], content, marker and marker[1]))
        number += 1
    return blocks
