"""Datasets that are two folders: inputs in one, labels of the same relative names in the other."""

import os
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from densevit.data.missing import missing_path
from densevit.errors import DataError

SHOWN = 10  # names in an error


def list_files(folder: Path, suffixes: tuple[str, ...], help_text: str = "") -> dict[str, str]:
    """Return the files below ``folder`` whose names end in a suffix, sorted: relative path without it -> path.

    Upper and lower case of a suffix are the same; hidden files are passed over.

    Raises:
        DataError: The folder is missing (``help_text`` is added), has no such file, or two that differ in suffix only.
    """
    if not folder.is_dir():
        raise missing_path("folder", folder, help_text)
    found: dict[str, str] = {}
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            suffix = next((s for s in suffixes if name.lower().endswith(s.lower())), None)
            if suffix is None or name.startswith("."):
                continue
            path = os.path.join(parent, name)
            key = os.path.relpath(path, folder)[: -len(suffix)]
            if key in found:
                raise DataError(f"{found[key]} and {path} go by the same name; remove one, or narrow the suffixes")
            found[key] = path
    if not found:
        raise DataError(f"{folder} holds no file that ends in {' or '.join(suffixes)}; check the path and the suffix")
    return dict(sorted(found.items()))


def listed_files(path: Path, files: Mapping[str, str]) -> dict[str, str]:
    """Return those of ``files`` that a text names, one a line without suffix, in its order.

    Empty lines are passed over.

    Raises:
        DataError: It is missing or empty, or names a file that there is not, or one twice.
    """
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: no list of names ({error}); check data_root and ann_file") from error
    missing = [name for name in names if name not in files]
    twice = [name for name, count in Counter(names).items() if count > 1]
    for found, fault in ((missing, "are no file"), (twice, "are listed twice")):
        if found:
            raise DataError(
                f"{path}: {len(found)} of {len(names)} names {fault}: {shortened(found)}. A line is a path from the "
                f"folder on, without its suffix, such as {next(iter(files))}"
            )
    if not names:
        raise DataError(f"{path} names nothing; a line is a path from the folder on, without its suffix")
    return {name: files[name] for name in names}


def pair_files(images: Mapping[str, str], labels: Mapping[str, str], where: str) -> list[tuple[str, str]]:
    """Return (image, label) by name, in the order of ``images``.

    Args:
        images: From `list_files`.
        labels: From `list_files`.
        where: Both folders, for the error.

    Raises:
        DataError: A file of either kind has no partner.
    """
    unlabelled, orphans = [images[k] for k in images.keys() - labels], [labels[k] for k in labels.keys() - images]
    if unlabelled or orphans:
        raise DataError(
            f"{where}: {len(images)} images and {len(labels)} masks are matched by relative name without suffix, but "
            + "; ".join(
                f"{len(paths)} {what}: {shortened(sorted(paths))}"
                for paths, what in [(unlabelled, "images have no mask"), (orphans, "masks have no image")]
                if paths
            )
            + ". Add or remove files until they match, or correct the folders and suffixes"
        )
    return [(images[key], labels[key]) for key in images]


def shortened(items: Collection[str], shown: int = SHOWN) -> str:
    """Return the first items and the count of the rest, for an error message."""
    rest = len(items) - shown
    return ", ".join(list(items)[:shown]) + (f" and {rest} more" if rest > 0 else "")
