"""A predictor from a run, a checkpoint or official weights."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from densevit.checkpoint_folder import CONTENT
from densevit.engine.checkpoint import find_fault, load_state, read_checkpoint
from densevit.engine.checkpoint_meta import meta_of
from densevit.engine.config import load_config
from densevit.engine.manifest import MANIFEST, newest_first, read_manifest
from densevit.engine.plain_config import from_plain
from densevit.errors import CheckpointError, ConfigError
from densevit.inference import slides_over_time, use_inference
from densevit.model import DenseModel
from densevit.palette import distinct_colours
from densevit.predictor import Predictor
from densevit.registry import DATASETS, MODELS


def load(
    source: str | Path,
    config: str | Path | Config | None = None,
    device: str | torch.device | None = None,
    slide: bool = False,
    tta: bool = False,
    slide_window: float | None = None,
    slide_stride: float | None = None,
) -> Predictor:
    """Return a trained model with its preprocessing: ``load("work_dirs/mine")("photo.jpg").plot()``.

    Nothing in a checkpoint is executed; modules of its config's ``custom_imports`` are to be imported before.

    Args:
        source: The folder of a run, of which the best checkpoint is taken, or the newest where none was chosen as
            best, and one that is damaged is passed over; a checkpoint; or weights of an official release.
        config: Name or file of a config, or a loaded one. Checkpoints of ours carry theirs, other weights do not.
        device: Where to run; by default the GPU if there is one.
        slide: Sliding windows in place of the whole image; of videos, one clip after the other.
        tta: Average over scales and the mirror image; of clips, crops; of volumes, mirror images.
        slide_window: Seconds of the windows of a video; by default those of a clip.
        slide_stride: Seconds from one window to the next; by default half a window.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, of another model, or carries no config.
        ConfigError: The config is wrong, or an option is for other tasks.
    """
    cfg = None if config is None else _given(config)
    path, content, step = _read(Path(source))
    meta = meta_of(content)
    cfg = from_plain(meta.get("config"), str(path)) if cfg is None else cfg
    over_time = slides_over_time(cfg)
    if not (slide and over_time) and (slide_window or slide_stride) is not None:
        raise ConfigError("slide_window and slide_stride go with slide and a config of clips")
    use_inference(cfg, slide and not over_time, tta)

    model: DenseModel = MODELS.build({key: value for key, value in cfg.model.items() if key != "weights"})
    load_state(model, content, path)
    named = named_classes(meta, cfg, model.head.num_classes)
    options = cfg.test_dataloader.dataset
    dataset: Any = DATASETS.get(options.type)
    predictor: Any = (dataset.predictor or Predictor)(
        model,
        dataset.preparation(options),
        named["classes"],
        named["palette"],
        device,
        dataset.reader(options),
        dataset.picture,
        dataset.suffixes,
    )
    predictor.dataset = options
    if slide and over_time:
        predictor.slide(options, slide_window, slide_stride)
    if step:
        print(f"loaded {path}: {step}")
    return predictor


def _given(config: str | Path | Config) -> Config:
    """Return a config that may be changed."""
    cfg = copy.deepcopy(config) if isinstance(config, Config) else load_config(config)
    if lacking := [section for section in ("model", "test_dataloader") if not cfg.get(section)]:
        raise ConfigError(f"{cfg.filename or 'the config'} has no {' and no '.join(lacking)}, which predicting needs")
    return cfg


def checkpoint_of(source: str | Path) -> Path:
    """Return a checkpoint that is named by its file, or by the folder of a run, of which `load` says what is taken.

    Raises:
        CheckpointError: The folder of a run holds none that is intact.
    """
    source = Path(source)
    if not (source / MANIFEST).is_file():
        return source
    for path in sorted(newest_first(source), key=lambda path: not path.name.startswith("best_")):
        if (fault := find_fault(path)) is None:
            return path
        print(f"passed over: {path} {fault}")
    raise CheckpointError(
        f"{source} holds no intact checkpoint that its {MANIFEST} names: name the file of one, or train on with "
        "--resume, which looks at all files"
    )


def _read(source: Path) -> tuple[Path, Any, str]:
    """Return a checkpoint and what it holds; of a run's folder, the best or newest that is intact, and its step."""
    path = checkpoint_of(source)
    if path == source:
        if source.is_dir() and not (source / CONTENT).is_file():
            raise CheckpointError(f"{source} has no {MANIFEST}, so it is no folder of a run: name a checkpoint")
        return source, read_checkpoint(source), ""
    entry = read_manifest(source)[path.name]
    score = f", score {entry['score']:.4g}" if "score" in entry else ""
    return path, read_checkpoint(path), f"step {entry['iter']}{score}"


def named_classes(meta: Mapping[str, Any], cfg: Config, num_classes: int) -> dict[str, Any]:
    """Return the classes and palette in a checkpoint's ``meta``, if they are as many; else those that the config names.

    The files of its dataset are not looked at: where it names none, they are called "class 0" and so on.
    """
    carried = meta.get("dataset") or {}
    if len(carried.get("classes", ())) == num_classes:
        return carried
    dataset = cfg.test_dataloader.dataset
    classes = dataset.get("classes") or getattr(DATASETS.get(dataset.type), "classes", None)
    names = list(classes or (f"class {i}" for i in range(num_classes)))
    return {"classes": names, "palette": distinct_colours(len(names))}
