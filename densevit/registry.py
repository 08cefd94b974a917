"""Registries. Nothing is imported until the first look-up, which imports the locations.

mmengine's registries fall back to importing any dotted path, so that ``type="subprocess.check_output"`` in
a config runs a command. Ours build registered names only, and the guards below do the same for the
registries of mmengine that we do not extend.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mmengine import registry as root

from densevit.errors import ConfigError

# Where a name may be that is not even nearly a registered one.
YOURS = " If it is yours, name its module in custom_imports."
ELSEWHERE = {
    "backbone": ' Models of timm are type="timm", name="resnet50" for instance.',
    "model": " The model of a config is a DenseModel: docs/coming_from has what it is elsewhere.",
}

_TASKS = [f"densevit.tasks.{task}" for task in ("classification", "detection", "medical", "segmentation", "video")]


class Registry(root.Registry):
    """Names to classes, in one flat scope. Names that mmengine registers for the same purpose are found too."""

    def __init__(self, name: str, locations: Iterable[str] = (), parent: root.Registry | None = None) -> None:
        super().__init__(name, parent=parent, scope="densevit", locations=list(locations))

    def get(self, key: str) -> Callable[..., Any]:
        """Return what ``key`` names.

        Raises:
            ConfigError: The name is not registered; the nearest one is suggested.
        """
        names = self._names()
        if key not in names:
            near = suggestion(key, names)
            elsewhere = YOURS + ELSEWHERE.get(self.name, "") if near.startswith(" Known") else ""
            raise ConfigError(f"{key!r} is not a registered {self.name}.{elsewhere}{near}")
        return names[key]

    def build(self, cfg: Mapping[str, Any], default_args: Mapping[str, Any] | None = None) -> Any:
        """Construct what ``cfg["type"]`` names with the other items; ``default_args`` come before those.

        Raises:
            ConfigError: No "type", an unknown name, or a key that the constructor does not take, or one that it needs.
        """
        self.check(cfg)
        args = {**(default_args or {}), **cfg}
        kind = args.pop("type")
        target = self._target(kind)
        if lacking := [key for key in required_keys(target) if key not in args]:
            raise ConfigError(f"{self.name} {kind!r} needs {' and '.join(map(repr, lacking))}: add it to the config")
        return target(**args)

    def check(self, cfg: Mapping[str, Any]) -> None:
        """Raise what `build` would raise for wrong names and keys, without constructing anything."""
        if not isinstance(cfg, Mapping) or "type" not in cfg:
            raise ConfigError(f'a {self.name} is configured by a dict with the key "type", not by {cfg!r}')
        known = accepted_keys(self._target(cfg["type"]))
        for key in cfg.keys() - {"type"}:
            if known is not None and key not in known:
                raise ConfigError(f"{self.name} {cfg['type']!r} takes no {key!r}.{suggestion(key, known)}")

    def names(self) -> list[str]:
        """Return the registered names, sorted."""
        return sorted(self._names())

    def _target(self, kind: Any) -> Callable[..., Any]:
        return self.get(kind) if isinstance(kind, str) else kind

    def _names(self) -> dict[str, Callable[..., Any]]:
        self.import_from_location()
        inherited = self.parent.module_dict if self.parent is not None else {}
        return {**inherited, **self.module_dict}


def accepted_keys(target: Callable[..., Any]) -> set[str] | None:
    """Return the keyword arguments of ``target``, or None if it takes any.

    A variant function such as ``mit_b0(**options) -> MiT`` takes what the class it returns takes.
    """
    if not inspect.isclass(target):
        named, more = _parameters(target)
        made = inspect.signature(target).return_annotation
        if more and inspect.isclass(made) and made is not inspect.Signature.empty:
            beyond = accepted_keys(made)
            return None if beyond is None else named | beyond
        return None if more else named
    known: set[str] = set()
    for base in target.__mro__:  # arguments that a constructor hands on go to the next one
        if "__init__" in base.__dict__ and base is not object:
            named, more = _parameters(base.__dict__["__init__"])
            known |= named - {"self"}
            if not more:
                return known
    return known if target.__init__ is object.__init__ else None


def _parameters(target: Callable[..., Any]) -> tuple[set[str], bool]:
    """Return the names of arguments, and whether any other keyword is taken too."""
    parameters = inspect.signature(target).parameters.values()
    named = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters)


def required_keys(target: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments that have no default."""
    parameters = inspect.signature(target).parameters.values()
    named = [p for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [p.name for p in named if p.default is p.empty]


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean ...?" or the list of what is known, as the end of an error message."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    if near:
        return " Did you mean " + " or ".join(repr(n) for n in near) + "?"
    return f" Known: {', '.join(known)}." if known else " None is known here."


BACKBONES = Registry("backbone", ["densevit.backbones"])
NECKS = Registry("neck", ["densevit.necks"])
HEADS = Registry("head", _TASKS)
MODELS = Registry(
    "model", ["densevit.model", "densevit.preprocess", "densevit.engine.ema", *_TASKS], parent=root.MODELS
)
DATASETS = Registry("dataset", _TASKS)  # mmengine's wrap its own datasets only, and are left out
TRANSFORMS = Registry("transform", ["densevit.data.transforms"])  # mmcv's, of another kind, are left out
VOLUME_TRANSFORMS = Registry("transform of volumes", ["densevit.data.volume_transforms"])
SAMPLINGS = Registry("sampling of frames", ["densevit.data.frame_sampling"])
METRICS = Registry("metric", _TASKS, parent=root.METRICS)
HOOKS = Registry("hook", ["densevit.engine.hooks", "densevit.engine.ema"], parent=root.HOOKS)

LOOPS = Registry("loop", ["densevit.engine.loops"], parent=root.LOOPS)

# Guards: what mmengine registers, without its dotted-path fall-back.
OPTIMIZERS = Registry("optimizer", ["densevit.engine.adafactor", "mmengine.optim"], parent=root.OPTIMIZERS)
OPTIM_WRAPPERS = Registry("optimizer wrapper", ["mmengine.optim"], parent=root.OPTIM_WRAPPERS)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    "optimizer wrapper constructor",
    ["densevit.engine.layer_decay", "mmengine.optim"],
    parent=root.OPTIM_WRAPPER_CONSTRUCTORS,
)
PARAM_SCHEDULERS = Registry(
    "parameter scheduler", ["densevit.engine.schedules", "mmengine.optim"], parent=root.PARAM_SCHEDULERS
)
VISUALIZERS = Registry("visualizer", ["mmengine.visualization"], parent=root.VISUALIZERS)
VISBACKENDS = Registry("visualizer backend", ["mmengine.visualization"], parent=root.VISBACKENDS)
LOG_PROCESSORS = Registry("log processor", ["mmengine.runner"], parent=root.LOG_PROCESSORS)
EVALUATORS = Registry("evaluator", ["mmengine.evaluator"], parent=root.EVALUATOR)
MODEL_WRAPPERS = Registry("model wrapper", ["mmengine.model"], parent=root.MODEL_WRAPPERS)
