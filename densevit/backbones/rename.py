"""Names of parameters in other layouts."""

import re
from collections.abc import Callable, Iterable

Pattern = tuple[str, str | Callable[[re.Match[str]], str]]


def rename(key: str, patterns: Iterable[Pattern]) -> str:
    """Return ``key`` after the substitution of each regular expression in turn."""
    for pattern, name in patterns:
        key = re.sub(pattern, name, key)
    return key
