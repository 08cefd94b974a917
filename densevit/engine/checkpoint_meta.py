"""What a checkpoint says of itself. Files come from anywhere, and others' may hold anything under these names."""

from collections.abc import Mapping
from typing import Any


def meta_of(content: Any) -> dict[str, Any]:
    """Return the ``meta`` of what a checkpoint of ours or a published model holds; of other files nothing.

    Under "dataset" are "classes", their names, and "palette", an (R, G, B) for each, or nothing.
    """
    meta = content.get("meta") if isinstance(content, Mapping) else None
    if not isinstance(meta, Mapping):
        return {}
    return {**meta, "dataset": _named_classes(meta.get("dataset"))}


def _named_classes(dataset: Any) -> dict[str, Any]:
    if not isinstance(dataset, Mapping):
        return {}
    classes, palette = (dataset.get(key) for key in ("classes", "palette"))
    if not isinstance(classes, list | tuple) or not isinstance(palette, list | tuple):
        return {}
    named = all(isinstance(name, str) for name in classes) and len(palette) >= len(classes) > 0
    return dict(dataset) if named and all(map(_is_colour, palette)) else {}


def _is_colour(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and all(type(n) is int and 0 <= n < 256 for n in value)
