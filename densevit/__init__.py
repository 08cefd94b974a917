"""Dense prediction with interchangeable vision backbones.

Importing this loads nothing else: each public name is imported when it is first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(("create_backbone", "create_model", "list_models"), "densevit.api"),
    "load": "densevit.loading",
    **dict.fromkeys(("LoadReport", "load_weights"), "densevit.weights"),
    **dict.fromkeys(("Predictor", "Result"), "densevit.predictor"),
    **dict.fromkeys(("Backbone", "Features", "FeatureSpec", "Head", "Neck"), "densevit.features"),
    **dict.fromkeys(
        ("BACKBONES", "DATASETS", "HEADS", "HOOKS", "METRICS", "MODELS", "NECKS", "TRANSFORMS"), "densevit.registry"
    ),
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"densevit has no {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
