"""A trained model as a folder for others: weights alone, the whole config, a card, a checksum; and nothing private."""

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from mmengine.config import Config
from torch.utils._pytree import tree_leaves

from densevit import __version__
from densevit.data.file_hash import sha256_of
from densevit.engine.checkpoint import load_model
from densevit.engine.checkpoint_meta import meta_of
from densevit.engine.config import load_config
from densevit.engine.manifest import MANIFEST
from densevit.engine.plain_config import to_plain
from densevit.errors import CheckpointError, ConfigError
from densevit.loading import named_classes
from densevit.model import DenseModel
from densevit.model_card import Card, logged_scores
from densevit.registry import DATASETS, MODELS
from densevit.weights import HEADER

# Of the machine and the run, not of the model.
PRIVATE = ("work_dir", "load_from", "resume", "launcher")
DATASET = ("classes", "palette", "category_ids")
TRAINED = ("iter", "epoch", "densevit", "torch")


@dataclass
class Published:
    """What was published.

    Attributes:
        weights: The file.
        sha256: Of that file.
        renamed: Dotted keys of paths in the config that were of this machine: what stands there now.
    """

    weights: Path
    sha256: str
    renamed: dict[str, str] = field(default_factory=dict)


def publish(cfg: Config, checkpoint: Path, out: Path, name: str) -> Published:
    """Write ``NAME-<first 8 digits of SHA-256>.safetensors``, config.py, README.md and a manifest to a new folder.

    The weights are those that a test of the checkpoint is of: the averaged ones of a run with `EMAHook`. They are
    read again by the published config, and must give the same outputs bit for bit. The folder appears whole.

    Args:
        cfg: Of the model.
        checkpoint: Of a run of ours, or official weights.
        out: The folder; it may exist if it is empty.
        name: Of the model.

    Raises:
        ConfigError: ``out`` is in use or cannot be written, ``name`` is none for files, or the config holds a path of
            this machine that cannot be left out.
        CheckpointError: The checkpoint is missing, corrupt, or of another model.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ConfigError(f"{name!r} is no name for files: --name takes letters, digits, dots, _ and -")
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ConfigError(f"{out} is in use already: choose another --out")
    model = _build(cfg)
    content = load_model(model, checkpoint)
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.absolute().parent) as temporary:
            part = Path(temporary, "published")
            part.mkdir()
            done = _write(part, cfg, model, content, checkpoint, out.absolute().name, name)
            os.replace(part, out)
    except OSError as error:
        raise ConfigError(f"cannot write to {out}: {error.strerror}. Choose another --out") from error
    return Published(out / done.weights.name, done.sha256, done.renamed)


def _write(
    folder: Path, cfg: Config, model: DenseModel, content: Mapping[str, Any], checkpoint: Path, called: str, name: str
) -> Published:
    """Write all files to a folder that is going to be ``called`` otherwise, and check that they can be used."""
    public, renamed = public_config(cfg)
    meta = _header(cfg, public, model, meta_of(content))
    weights = folder / f"{name}.safetensors"
    state = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    safetensors.torch.save_file(state, weights, {"format": "pt", HEADER: json.dumps(meta)})
    sha256, size = sha256_of(weights), weights.stat().st_size
    weights = weights.rename(weights.with_stem(f"{name}-{sha256[:8]}"))
    entry = {"size": size, "sha256": sha256, "iter": meta.get("iter", 0), "epoch": meta.get("epoch", 0)}
    (folder / MANIFEST).write_text(json.dumps({weights.name: entry}, indent=1))
    weights.chmod((folder / MANIFEST).stat().st_mode)  # safetensors makes files that only their owner reads
    public.dump(folder / "config.py")
    started = cfg.model.get("weights")
    card = Card(
        name=name,
        folder=called,
        weights=weights.name,
        sha256=sha256,
        size=size,
        cfg=public,
        model=model,
        meta=meta,
        started_from=Path(started).name if started else None,
        averaged="ema_state_dict" in content,
        scores=logged_scores(checkpoint.parent, meta["iter"]) if "iter" in meta else {},
        chosen=checkpoint.name.startswith("best_"),
    )
    (folder / "README.md").write_text(str(card))
    _check_privacy({"config.py": public.pretty_text, "README.md": str(card), "the weights": json.dumps(meta)})
    _check_use(folder / "config.py", weights, model)
    return Published(weights, sha256, renamed)


def public_config(cfg: Config) -> tuple[Config, dict[str, str]]:
    """Return a config without what is of the run or the machine, and the paths that were renamed for that.

    An absolute path, or one from a home directory, becomes ``data/<its last part>``.
    """
    content = {key: value for key, value in cfg.to_dict().items() if key not in PRIVATE}
    content["model"] = {key: value for key, value in content["model"].items() if key != "weights"}
    renamed: dict[str, str] = {}

    def shorten(node: Any, key: str) -> Any:
        if isinstance(node, dict):
            return {name: shorten(value, f"{key}.{name}") for name, value in node.items()}
        if isinstance(node, list | tuple):
            return type(node)(shorten(value, f"{key}.{i}") for i, value in enumerate(node))
        if isinstance(node, str) and re.match(r"/|~|[A-Za-z]:[\\/]", node):
            last = re.split(r"[\\/]", node.rstrip("\\/"))[-1]
            renamed[key.removeprefix(".")] = f"data/{last}"
            return f"data/{last}"
        return node

    return Config(shorten(content, "")), renamed


def _header(cfg: Config, public: Config, model: DenseModel, trained: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the file of weights says of itself, in values of JSON: much of a checkpoint's ``meta``."""
    dataset = named_classes(trained, cfg, model.head.num_classes)
    return {
        "task": _task(cfg),
        "config_name": str(trained.get("config_name") or Path(cfg.filename or "").name),
        "dataset": {key: dataset[key] for key in DATASET if key in dataset},
        "config": to_plain(public),
        **{key: trained[key] for key in TRAINED if isinstance(trained.get(key), int | str)},
        "published_by": f"densevit {__version__}",
    }


def _task(cfg: Config) -> str:
    """Return the task that the config's dataset is one of, or derives from."""
    kind: Any = DATASETS.get(cfg.test_dataloader.dataset.type)
    homes = (re.match(r"densevit\.tasks\.(\w+)", base.__module__) for base in kind.__mro__)
    return next((home[1] for home in homes if home), "unknown")


def _check_privacy(texts: Mapping[str, str]) -> None:
    """Raise `ConfigError` if a text names a folder of this machine: what `public_config` cannot take out."""
    folders = {str(folder) for folder in (Path.home(), Path.cwd()) if folder != Path(folder.anchor)}
    for where, text in texts.items():
        for folder in folders:
            if re.search(rf"(?<![\w.-]){re.escape(folder)}(?![\w.-])", text):
                raise ConfigError(
                    f"{where} would name {folder}, which is of this machine only: find it by densevit print-config, "
                    "and set it otherwise by --cfg-options"
                )


def _check_use(config: Path, weights: Path, model: DenseModel) -> None:
    """Raise `CheckpointError` if what was written does not give the outputs of the model."""
    again = _build(load_config(config))
    load_model(again, weights)
    written = again.state_dict()
    same = all(torch.equal(value, written[key]) for key, value in model.state_dict().items())
    net = model.backbone
    size = [divisor * -(-64 // divisor) for divisor in net.divisor]
    if len(size) == 3 and net.num_frames:
        size[0] = net.num_frames
    x = torch.randn(1, net.in_channels, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        pairs = zip(*(tree_leaves(net.eval()(x)) for net in (model, again)), strict=True)
        same &= all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)
    if not same:
        raise CheckpointError(
            f"{weights.name} and config.py do not give the outputs of the checkpoint, so that nothing is published: "
            "does the model compute the same when it is built twice, and are its outputs finite?"
        )


def _build(cfg: Config) -> DenseModel:
    model: DenseModel = MODELS.build({key: value for key, value in cfg.model.items() if key != "weights"})
    return model
