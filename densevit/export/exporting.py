"""From a checkpoint to a file that was compared with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config

from densevit.engine.checkpoint import load_model
from densevit.engine.checkpoint_meta import meta_of
from densevit.errors import CheckpointError, ConfigError
from densevit.export.comparison import Row, compare
from densevit.export.description import describe
from densevit.export.files import check_installed, example, load, trace, write
from densevit.export.graph import Graph, fold_batch_norms
from densevit.export.sizes import input_size, usual_space
from densevit.loading import named_classes
from densevit.model import DenseModel
from densevit.registry import MODELS


class Exported(NamedTuple):
    """What was written, how many batch norms were folded, and how it compares with the model."""

    description: dict[str, Any]
    folded: int
    rows: list[Row]


def export(
    cfg: Config, checkpoint: str | Path, path: Path, form: str, space: Sequence[int] | None = None, static: bool = False
) -> Exported:
    """Write the model of a config with the weights of a checkpoint, run what was written, and compare.

    Args:
        cfg: With the dataset of the test, of which preparation and classes are described.
        checkpoint: Of a run, or official weights.
        path: Of the file; the description is also written beside it, ending with ".json".
        form: "onnx" or "pt2".
        space: Size that the graph is made at, ``(H, W)``, ``(T, H, W)`` or ``(D, H, W)``; by default that of the test.
        static: Take one input of that size only.

    Raises:
        CheckpointError: The checkpoint does not fit, or what was written gives something else; it is removed then.
        ConfigError: The size cannot be had, or the file not be written.
        InstallationError: What ONNX needs is not installed.
    """
    if form == "onnx":
        check_installed()
    # A graph is made of the model as it is written, not of what a compiler made of that.
    options = {key: value for key, value in cfg.model.items() if key not in ("weights", "compile")}
    model: DenseModel = MODELS.build(options)
    meta = meta_of(load_model(model, Path(checkpoint)))
    named = named_classes(meta, cfg, model.head.num_classes)
    size = input_size(model, space or usual_space(cfg, model), static)
    graph, folded = Graph(model), Graph(model)
    x = example(graph, 1, size.space)
    count = fold_batch_norms(folded, x)
    with torch.no_grad():
        outputs = list(graph(x))
    description = describe(cfg, model, size, outputs, named)
    write(trace(folded, size), path, form, description)
    try:
        rows = compare(graph, load(path, form), size)
    except ConfigError:
        path.unlink()
        raise
    if wrong := [row for row in rows if not row.equal]:
        path.unlink()
        raise CheckpointError(
            f"{path} differs from the model by {wrong[0].difference:.1e} on inputs {wrong[0].shape}"
            + (f", and {wrong[0].alone:.0%} of the objects are others" if wrong[0].alone else "")
            + ": it was removed. Try --static, or the other --format"
        )
    return Exported(description, count, rows)
