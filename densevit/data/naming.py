"""Failures of decoders, told with the name of the file."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from densevit.errors import DataError


def unreadable(path: str | Path, error: Exception) -> str:
    """Return what is wrong with a file that a decoder gave up on."""
    return f"damaged or unreadable ({error})"


@contextmanager
def naming(
    path: str | Path,
    failures: tuple[type[Exception], ...],
    describe: Callable[[str | Path, Exception], str] = unreadable,
) -> Iterator[None]:
    """Turn any of the ``failures`` of a decoder into a `DataError` of the file, with what ``describe`` says of it."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except failures as error:
        raise DataError(f"{path}: {describe(path, error)}; replace or remove the file") from error
