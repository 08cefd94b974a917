"""What one must know to use an exported model, as plain data: it is stored in the file and beside it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from densevit import __version__
from densevit.export.sizes import InputSize
from densevit.model import DenseModel

KEY = "densevit"  # of the text in the metadata of an ONNX file
EXTRA_FILE = "densevit.json"  # in a pt2 file
PREPARATION = ("sampling", "short_side", "prepare", "transforms")  # keys of datasets, in the order of their use


def describe(
    cfg: Config, model: DenseModel, size: InputSize, outputs: Sequence[str], named: dict[str, Any]
) -> dict[str, Any]:
    """Return the input, the outputs, what comes before and after, and the names of the classes.

    Args:
        cfg: Of the model. No path of it gets into the description.
        model: That is exported.
        size: Of its inputs.
        outputs: Names of what it gives.
        named: "classes" and "palette".
    """
    dataset = cfg.test_dataloader.dataset
    channels = model.backbone.in_channels
    images = len(size.space) == 2 or dataset.get("sampling") is not None
    described = {
        "densevit": __version__,
        "config": Path(cfg.filename).stem if cfg.filename else None,
        "head": type(model.head).__name__,
        "input": {
            "name": "image",
            "dtype": "float32",
            "shape": size.shape(channels),
            "multiples": list(size.multiples),
            "at_least": list(size.least),
            "values": "RGB, 0 to 255" if images and channels == 3 else "as prepared",
        },
        "outputs": list(outputs),
        "preparation": {key: dataset[key] for key in PREPARATION if dataset.get(key)},
        "inference": cfg.model.get("inference"),
        "classes": list(named["classes"]),
        "palette": [list(colour) for colour in named["palette"]],
    }
    return json.loads(json.dumps(described, default=str))
