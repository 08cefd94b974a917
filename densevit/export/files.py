"""Writing an exported model, and running what was written."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from densevit.errors import ConfigError, InstallationError
from densevit.export.description import EXTRA_FILE, KEY
from densevit.export.graph import Graph
from densevit.export.sizes import InputSize

FORMATS = ("onnx", "pt2")
LARGE = 1_900_000_000  # bytes of weights that ONNX wants in a file of their own
Run = Callable[[Tensor], dict[str, np.ndarray]]


def trace(graph: Graph, size: InputSize) -> ExportedProgram:
    """Return the graph as `torch.export` sees it.

    Raises:
        ConfigError: It cannot be made for all sizes.
    """
    x = example(graph, 2 if size.batch else 1, size.space)
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(graph, (x,), dynamic_shapes=(size.dims(),))
    except RuntimeError as error:
        name = type(graph.model.backbone).__name__
        reason = str(error).strip().splitlines()[0]
        hint = "add --static" if size.batch else "see docs/export.md for what can be exported"
        raise ConfigError(f"{name} with {type(graph.model.head).__name__} has no graph: {hint} ({reason})") from error


def example(graph: Graph, batch: int, space: tuple[int, ...], seed: int = 0) -> Tensor:
    """Return inputs of smooth random blobs, with some noise, of values 0 to 255."""
    generator = torch.Generator().manual_seed(seed)
    channels = graph.model.backbone.in_channels
    coarse = torch.rand(batch, channels, *(min(n, 4) for n in space), generator=generator)
    mode = "bilinear" if len(space) == 2 else "trilinear"
    smooth = torch.nn.functional.interpolate(coarse, space, mode=mode)
    noise = torch.rand(smooth.shape, generator=generator)
    return (230 * smooth + 25 * noise).contiguous()


def write(program: ExportedProgram, path: Path, form: str, description: dict[str, Any]) -> None:
    """Write a graph with its description, and the description once more, as JSON, beside it.

    Raises:
        ConfigError: The file cannot be written, or not as ONNX.
        InstallationError: ONNX is wanted and is not installed.
    """
    text = json.dumps(description)
    if form == "onnx":
        check_installed()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if form == "onnx":
            _write_onnx(program, path, text)
        else:
            torch.export.save(program, path, extra_files={EXTRA_FILE: text})
        path.with_suffix(".json").write_text(json.dumps(description, indent=1))
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}. Choose another --out") from error


def load(path: Path, form: str) -> Run:
    """Return a written model, on the CPU."""
    if form == "pt2":
        module = torch.export.load(path).module()
        return lambda x: {name: value.numpy() for name, value in module(x).items()}
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what fails is raised too
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda x: dict(zip(names, session.run(names, {"image": x.numpy()}), strict=True))


def check_installed() -> None:
    """Raise `InstallationError` if what writes and runs ONNX is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InstallationError(f'ONNX files need more packages ({error}): pip install "densevit[export]"') from error


def _write_onnx(program: ExportedProgram, path: Path, text: str) -> None:
    outputs = list(program.call_spec.out_spec.context)  # names, in their order
    try:
        with _quiet():
            made = torch.onnx.export(program, input_names=["image"], output_names=outputs, dynamo=True, verbose=False)
    except RuntimeError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ConfigError(
            f"not all of the graph can be written as ONNX: add --static, or --format pt2 ({reason})"
        ) from error
    assert made is not None
    made.model.metadata_props[KEY] = text
    weights = sum(value.nbytes for value in program.state_dict.values())
    made.save(path, external_data=weights > LARGE)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what PyTorch prints and warns of while it makes graphs: nothing in it is for users."""
    loggers = [logging.getLogger(name) for name in ("onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
