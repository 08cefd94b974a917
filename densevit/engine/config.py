"""Loading and checking of configs: a wrong name or key fails here, before any data is read."""

import difflib
import importlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from densevit import registry
from densevit.engine.config_bases import find_config, named_bases
from densevit.engine.config_trust import check_files, check_types
from densevit.engine.config_values import check_values
from densevit.errors import ConfigError
from densevit.registry import Registry, suggestion

LOADER_KEYS = {
    "batch_size",
    "dataset",
    "multiprocessing_context",
    "num_workers",
    "pin_memory",
    "prefetch_factor",
    "shuffle",
    "timeout",
}
TRAIN_LOADER_KEYS = LOADER_KEYS | {"group_by_aspect", "multi_scale", "repeats"}
MULTI_SCALE_KEYS = {"base_size", "sizes"}
LOOP_KEYS = {
    "train_cfg": {"by_epoch", "max_epochs", "max_iters", "type", "val_begin", "val_interval"},
    "val_cfg": {"loss", "type"},
}
SCALE_KEYS = {"base_batch_size", "enable"}
DIST_KEYS = {"timeout"}
PARAMWISE_KEYS = {
    "bias_decay_mult",
    "bias_lr_mult",
    "bypass_duplicate",
    "custom_keys",
    "dcn_offset_lr_mult",
    "dwconv_decay_mult",
    "flat_decay_mult",
    "norm_decay_mult",
}
PARALLEL_KEYS = {"ddp": {"type"}, "fsdp": {"reshard_after_forward", "type"}}
WHOLE_GRADIENTS = {"Adafactor", "LBFGS", "Muon", "ViTAdafactor"}  # optimizers that look at more than single elements
RUN_KEYS = {
    "auto_scale_lr",
    "check_data",
    "custom_hooks",
    "custom_imports",
    "default_hooks",
    "default_scope",
    "env_cfg",
    "experiment_name",
    "find_unused_parameters",
    "launcher",
    "load_from",
    "log_level",
    "log_processor",
    "model",
    "optim_wrapper",
    "parallel",
    "param_scheduler",
    "randomness",
    "resume",
    "sync_bn",
    "test_cfg",
    "test_dataloader",
    "test_evaluator",
    "train_cfg",
    "train_dataloader",
    "val_cfg",
    "val_dataloader",
    "val_evaluator",
    "visualizer",
    "work_dir",
}


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config with its bases, import its ``custom_imports``, apply ``options``, and check it.

    Modules of ``custom_imports`` are looked for in the working directory and beside the config too.

    Args:
        path: A text config of mmengine, in Python, or the name of one of ours, such as "segformer_b0_ade20k".
        options: Dotted keys to values, as from ``--cfg-options``.

    Raises:
        ConfigError: The file, a base or a module does not exist or is no Python, or a name or key in it is wrong.
    """
    path = find_config(Path(path))
    sys.path.extend(p for p in (str(Path.cwd()), str(path.parent.resolve())) if p not in sys.path)
    check_files(path)
    with named_bases():
        cfg = Config.fromfile(path, import_custom_modules=False)
    _import_modules(cfg.get("custom_imports"), path)
    merge_options(cfg, options or {})
    check_config(cfg)
    return cfg


def _import_modules(custom_imports: Any, path: Path) -> None:
    custom_imports = custom_imports or {}
    if not isinstance(custom_imports, Mapping) or set(custom_imports) - {"imports", "allow_failed_imports"}:
        raise ConfigError(f'{path}: custom_imports is dict(imports=["my_module", ...]), not {custom_imports!r}')
    for name in _as_list(custom_imports.get("imports")):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # of what the module itself imports
            if custom_imports.get("allow_failed_imports"):
                continue
            raise ConfigError(
                f"{path}: no module {name!r} of custom_imports. It is looked for in {Path.cwd()}, in "
                f"{path.parent.resolve()}, and where Python looks"
            ) from None


def merge_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Set dotted keys; all but the last part of a key must exist.

    Raises:
        ConfigError: A part of a key does not exist.
    """
    for key, value in options.items():
        *parents, last = key.split(".")
        node: Any = cfg
        for part in parents:
            node = _child(node, part, key)
        if node is cfg and last not in cfg and last not in RUN_KEYS:
            raise ConfigError(f"--cfg-options {key}: no such key.{suggestion(last, {*cfg.keys(), *RUN_KEYS})}")
        if isinstance(node, list):
            _child(node, last, key)
            node[int(last)] = value
        else:
            node[last] = value


def _child(node: Any, part: str, key: str) -> Any:
    if isinstance(node, list | tuple):
        if not part.isdigit() or int(part) >= len(node):
            raise ConfigError(f"--cfg-options {key}: {part!r} is not an index below {len(node)}")
        return node[int(part)]
    if not isinstance(node, Mapping | Config) or part not in node:
        known = node.keys() if isinstance(node, Mapping | Config) else ()
        raise ConfigError(f"--cfg-options {key}: no {part!r}.{suggestion(part, known)}")
    return node[part]


def check_config(cfg: Config) -> None:
    """Raise `ConfigError` for unknown types, misspelt keys and sections, and impossible numbers."""
    check_types(cfg)
    for key in cfg:
        # A name that is no section of a run may be a variable, unless it is nearly one.
        if key not in RUN_KEYS and (near := difflib.get_close_matches(key, RUN_KEYS, n=1, cutoff=0.88)):
            raise ConfigError(f"config key {key!r} means nothing.{suggestion(key, near)}")
    _check_processes(cfg)
    if "model" in cfg:
        _check_model(cfg.model)
    for split in ("train", "val", "test"):
        if loader := cfg.get(f"{split}_dataloader"):
            _check_loader(f"{split}_dataloader", loader)
        for metric in _as_list(cfg.get(f"{split}_evaluator")):
            registry.METRICS.check(metric)
    _check_schedule(cfg)
    _check_parallel(cfg)
    hooks = [h for h in (cfg.get("default_hooks") or {}).values() if h is not None]
    for hook in hooks + _as_list(cfg.get("custom_hooks")):
        _check(registry.HOOKS, hook, apart=("priority",))
    check_values(cfg)


def _check_processes(cfg: Config) -> None:
    group = (cfg.get("env_cfg") or {}).get("dist_cfg") or {}
    scaling = cfg.get("auto_scale_lr") or {}
    for name, options, known in (("auto_scale_lr", scaling, SCALE_KEYS), ("env_cfg.dist_cfg", group, DIST_KEYS)):
        for key in options:
            if key not in known:
                raise ConfigError(f"{name} takes no {key!r}.{suggestion(key, known)}")
    timeout = group.get("timeout", 1)
    if not isinstance(timeout, int | float) or timeout <= 0:
        raise ConfigError(f"env_cfg.dist_cfg.timeout is a number of seconds, 1800 for instance, not {timeout!r}")
    if cfg.get("sync_bn") not in (None, "torch"):
        raise ConfigError(f'sync_bn is "torch" or None, not {cfg.sync_bn!r}')


def _check_model(model: Mapping[str, Any]) -> None:
    _check(registry.MODELS, model, apart=("weights",))
    parts = {
        "backbone": registry.BACKBONES,
        "neck": registry.NECKS,
        "head": registry.HEADS,
        "inference": registry.MODELS,
    }
    for key, parts_registry in parts.items():
        if model.get(key) is not None:
            parts_registry.check(model[key])
    if (model.get("head") or {}).get("auxiliary"):
        registry.HEADS.check(model["head"]["auxiliary"])
    preprocessor = {"type": "ImagePreprocessor", **(model.get("data_preprocessor") or {})}
    registry.MODELS.check(preprocessor)
    mixed, told_apart = (part.get("num_classes") for part in (preprocessor, model.get("head") or {}))
    if mixed is not None and mixed != told_apart:
        raise ConfigError(
            f"model.data_preprocessor.num_classes is {mixed} but model.head.num_classes is {told_apart}: "
            "make them equal"
        )


def _check_loader(name: str, loader: Mapping[str, Any]) -> None:
    known = TRAIN_LOADER_KEYS if name == "train_dataloader" else LOADER_KEYS
    for key in loader:
        if key not in known:
            raise ConfigError(f"{name} takes no {key!r}.{suggestion(key, known)}")
    if "dataset" not in loader or "batch_size" not in loader:
        raise ConfigError(f'{name} needs "dataset" and "batch_size"')
    if "multi_scale" in loader and loader["multi_scale"].keys() != MULTI_SCALE_KEYS:
        raise ConfigError(f"{name}.multi_scale wants sizes and base_size, not {', '.join(loader['multi_scale'])}")
    if loader.get("group_by_aspect") and (loader.get("multi_scale") or loader.get("repeats", 1) > 1):
        raise ConfigError(f"{name}.group_by_aspect excludes multi_scale and repeats: leave it or those out")
    registry.DATASETS.check(loader["dataset"])
    kind = loader["dataset"]["type"]
    kind = registry.DATASETS.get(kind) if isinstance(kind, str) else kind
    for key, kinds in getattr(kind, "pipelines", {"transforms": registry.TRANSFORMS}).items():
        _check_transforms(kinds, loader["dataset"].get(key, ()))


def _check_transforms(kinds: Registry, transforms: Iterable[Any]) -> None:
    for transform in transforms:
        kinds.check(transform)
        _check_transforms(kinds, transform.get("transforms", ()))


def _check_schedule(cfg: Config) -> None:
    if wrapper := cfg.get("optim_wrapper"):
        _check(registry.OPTIM_WRAPPERS, {"type": "OptimWrapper", **wrapper}, apart=("constructor", "paramwise_cfg"))
        registry.OPTIMIZERS.check(wrapper["optimizer"])
        _check_paramwise(
            wrapper.get("constructor", "DefaultOptimWrapperConstructor"), wrapper.get("paramwise_cfg") or {}
        )
    for scheduler in _as_list(cfg.get("param_scheduler")):
        _check(registry.PARAM_SCHEDULERS, scheduler, apart=("convert_to_iter_based",))
    for section, known in LOOP_KEYS.items():
        for key in cfg.get(section) or ():
            if key not in known:
                raise ConfigError(f"{section} takes no {key!r}.{suggestion(key, known)}")


def _check_parallel(cfg: Config) -> None:
    parallel = cfg.get("parallel") or {}
    kind = parallel.get("type", "ddp")
    if kind not in PARALLEL_KEYS:
        raise ConfigError(f"parallel.type is one of {', '.join(PARALLEL_KEYS)}, not {kind!r}")
    for key in parallel:
        if key not in PARALLEL_KEYS[kind]:
            raise ConfigError(f"parallel of type {kind} takes no {key!r}.{suggestion(key, PARALLEL_KEYS[kind])}")
    optimizer = ((cfg.get("optim_wrapper") or {}).get("optimizer") or {}).get("type")
    if kind == "fsdp" and optimizer in WHOLE_GRADIENTS:
        raise ConfigError(
            f"optim_wrapper.optimizer {optimizer} needs whole gradients, which parallel of type fsdp splits: "
            'take AdamW, or parallel=dict(type="ddp")'
        )


def _check_paramwise(constructor: str, options: Mapping[str, Any]) -> None:
    target: Any = registry.OPTIM_WRAPPER_CONSTRUCTORS.get(constructor)
    if hasattr(target, "check"):
        target.check(options)
    elif constructor == "DefaultOptimWrapperConstructor":
        for key in options:
            if key not in PARAMWISE_KEYS:
                raise ConfigError(f"paramwise_cfg takes no {key!r}.{suggestion(key, PARAMWISE_KEYS)}")


def _check(kind: Registry, cfg: Mapping[str, Any], apart: tuple[str, ...]) -> None:
    kind.check({k: v for k, v in cfg.items() if k not in apart})


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
