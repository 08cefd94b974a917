"""A model by the name of a config or of a backbone, with random weights: for what counts and times."""

from pathlib import Path
from typing import Any

from torch import nn

from densevit.contract import build_backbone
from densevit.engine.config import load_config
from densevit.engine.config_bases import configs
from densevit.features import Backbone
from densevit.registry import MODELS


def named_model(name: str) -> tuple[nn.Module, Backbone]:
    """Return the model of a config and its backbone, or a backbone twice.

    Args:
        name: File or name of a config, or name of a backbone.

    Raises:
        ConfigError: It is none of these.
    """
    if not name.endswith(".py") and name not in configs() and not Path(name).with_suffix(".py").is_file():
        backbone = build_backbone({"type": name})
        return backbone, backbone
    options = load_config(name).model
    model: Any = MODELS.build({key: value for key, value in options.items() if key != "weights"})
    return model, model.backbone
