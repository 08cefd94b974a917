"""The page of what is imported from densevit, from its docstrings."""

from registered import heading, table

import densevit
from densevit import errors

# Each public name stands under one of these, with its methods where it is called by them.
PARTS = {
    "A trained model": ("load", "Predictor", "Result"),
    "Models by name": ("create_model", "create_backbone", "list_models", "load_weights", "LoadReport"),
    "The contract": ("FeatureSpec", "Features", "Backbone", "Neck", "Head"),
}
MORE = {
    "Predictions": (
        "densevit.data.class_prediction.ClassPrediction",
        "densevit.tasks.segmentation.prediction.SegPrediction",
        "densevit.tasks.detection.prediction.DetPrediction",
        "densevit.tasks.video.prediction.ClipPrediction",
        "densevit.tasks.medical.prediction.VolumePrediction",
    ),
    "Datasets and samples": (
        "densevit.data.dataset.DenseDataset",
        *(f"densevit.structures.{name}" for name in ("Sample", "Meta", "SegTarget", "ClassTarget", "BoxTarget")),
        "densevit.structures.VolumeTarget",
    ),
}
REGISTRIES = tuple(name for name in densevit.__all__ if name.isupper())


def page() -> str:
    """Return the page of the Python API."""
    text = heading("Python API", "=")
    text += "``import densevit`` loads nothing else: each name is imported when it is first used.\n\n"
    for title, names in PARTS.items():
        text += heading(title, "-") + "".join(_entry(getattr(densevit, name)) for name in names)
    for title, paths in MORE.items():
        text += heading(title, "-") + "".join(_class(path) for path in paths)
    text += heading("Registries", "-")
    text += "``@BACKBONES.register_module()`` over a class lets configs name it; so for the others:\n\n"
    rows = [(f"``densevit.{name}``", f"of each {getattr(densevit, name).name}") for name in REGISTRIES]
    text += table(("registry", ""), rows)
    text += ".. autoclass:: densevit.registry.Registry\n   :members: get, build, check, names\n\n"
    text += heading("Errors", "-")
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.DensevitError)]
    return text + "".join(f".. autoexception:: densevit.errors.{kind.__name__}\n\n" for kind in kinds)


def _entry(target: object) -> str:
    path = f"{target.__module__}.{target.__name__}"  # type: ignore[attr-defined]
    return _class(path) if isinstance(target, type) else f".. autofunction:: {path}\n\n"


def _class(path: str) -> str:
    return f".. autoclass:: {path}\n   :members:\n\n"
