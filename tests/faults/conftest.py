"""A test of a fault is marked by the fault and its outcome; the table of all of them is made from what was run."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

MARKS = "<!-- faults: written by `make faults` -->", "<!-- end of faults -->"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-table", metavar="FILE", help="print the table of faults, and put it into FILE")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(fault, outcome): a line of the table of faults")


@pytest.fixture(autouse=True)
def _fault(request: pytest.FixtureRequest) -> None:
    # Properties reach the process that sums up, where tests run in several; marks do not.
    for mark in request.node.iter_markers("fault"):
        request.node.user_properties.append(("fault", mark.args))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if (file := config.getoption("--fault-table")) is None:
        return
    reports = [r for kind in terminalreporter.stats.values() for r in kind if isinstance(r, pytest.TestReport)]
    text = table(r for r in reports if r.when == "call" or r.failed)
    terminalreporter.write_line(f"\n{text}")
    page = Path(file).read_text()
    inside = re.compile(f"(?<={re.escape(MARKS[0])}\n).*(?={re.escape(MARKS[1])})", re.DOTALL)
    Path(file).write_text(inside.sub(lambda _: f"\n{text}\n\n", page))


def table(reports: Iterable[pytest.TestReport]) -> str:
    """Return a line per fault: how often it was tried, and its outcome if all of the tests of it passed.

    A test may record "tries", 1 otherwise, and what it has "seen", as properties.
    """
    tries: dict[tuple[str, str], int] = {}
    failed, seen = set(), {}
    for report in reports:
        properties = dict(report.user_properties)
        if "fault" not in properties:
            continue
        fault = tuple(properties["fault"])
        tries[fault] = tries.get(fault, 0) + properties.get("tries", 1)
        if "seen" in properties:
            seen[fault] = f"; {properties['seen']}"
        if not report.passed:
            failed.add(fault)
    lines = ["| fault | tries | outcome |", "| --- | --- | --- |"]
    for fault in sorted(tries):
        outcome = "**FAILED**" if fault in failed else fault[1] + seen.get(fault, "")
        lines.append(f"| {fault[0]} | {tries[fault]} | {outcome} |")
    lines.append(f"| **all {len(tries)}** | **{sum(tries.values())}** | **{len(failed)} failed** |")
    return "\n".join(lines)
