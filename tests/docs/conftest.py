"""A sandbox for the blocks of a page."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.docs.sandbox import Sandbox


@pytest.fixture
def open_sandbox(tmp_path: Path) -> Iterator[Callable[[str], Sandbox]]:
    """Return what makes the sandbox of a page, in which the test then works."""
    with ExitStack() as stack:

        def make(page: str) -> Sandbox:
            sandbox = Sandbox(page, tmp_path / "generated")
            stack.enter_context(sandbox.open(tmp_path / "sandbox"))
            return sandbox

        yield make
