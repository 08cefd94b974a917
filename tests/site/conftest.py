"""What tests of the site share: the modules that write its pages."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

EXTENSIONS = Path(__file__).parents[2] / "docs" / "_ext"


@pytest.fixture
def extension(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Return a function that imports a module of docs/_ext."""
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    return import_module
