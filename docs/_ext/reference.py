"""The pages of the reference, written before the build from registries, parsers and docstrings."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import api
import options
from arguments import Argument, arguments, is_ours, with_fields
from docutils import nodes
from pages import write
from registered import entries, heading, others
from sphinx.application import Sphinx

from densevit import registry
from densevit.registry import Registry

HERE = Path(__file__).parents[1] / "reference"


@dataclass(frozen=True, slots=True)
class Part:
    """What stands on a page under one title: the classes of a registry whose modules begin with one of ``homes``."""

    title: str
    registry: Registry
    homes: tuple[str, ...] = ("densevit",)


@dataclass(frozen=True, slots=True)
class Page:
    """A page of registered names; those from other libraries follow at its end."""

    title: str
    text: str
    parts: tuple[Part, ...]


def _by_task(kinds: Registry, *more: Part) -> tuple[Part, ...]:
    tasks = ("classification", "segmentation", "detection", "video", "medical")
    return (*(Part(task.capitalize(), kinds, (f"densevit.tasks.{task}.",)) for task in tasks), *more)


PAGES = {
    "backbones": Page(
        "Backbone types",
        "``model.backbone``. A variant is named by its ``type`` alone; arguments of its class change it.",
        (Part("", registry.BACKBONES),),
    ),
    "necks": Page("Neck types", "``model.neck``. ``specs`` come from the backbone.", (Part("", registry.NECKS),)),
    "heads": Page(
        "Head types",
        "``model.head``. ``specs`` and ``token_channels`` come from the backbone, or the neck.",
        _by_task(registry.HEADS),
    ),
    "models": Page(
        "Model, preprocessing, inference",
        "``model``, ``model.data_preprocessor``, ``model.inference``, and kinds of averages for `EMAHook`.",
        (
            Part("Model", registry.MODELS, ("densevit.model",)),
            Part("Preprocessing", registry.MODELS, ("densevit.preprocess",)),
            Part("Inference", registry.MODELS, ("densevit.tasks",)),
            Part("Averages of weights", registry.MODELS, ("densevit.engine.ema",)),
        ),
    ),
    "datasets": Page("Dataset types", "``dataset`` of a loader.", _by_task(registry.DATASETS)),
    "transforms": Page(
        "Transform types",
        "``transforms`` of a dataset, and ``sampling`` of clips. Images take those of torchvision too, volumes those "
        "of MONAI for dictionaries.",
        (
            Part("Images and clips", registry.TRANSFORMS),
            Part("Frames of a clip", registry.SAMPLINGS),
            Part("Volumes", registry.VOLUME_TRANSFORMS),
        ),
    ),
    "metrics": Page(
        "Metric types",
        "``val_evaluator`` and ``test_evaluator``: one, or a list.",
        (Part("Classification", registry.METRICS, ("densevit.engine.accuracy",)), *_by_task(registry.METRICS)),
    ),
    "schedules": Page(
        "Optimizers and schedules",
        "``optim_wrapper``, its ``optimizer`` and ``constructor``, ``param_scheduler``, and the loops of "
        "``train_cfg``, ``val_cfg`` and ``test_cfg``.",
        (
            Part("Optimizers", registry.OPTIMIZERS),
            Part("Wrappers of optimizers", registry.OPTIM_WRAPPERS),
            Part("Groups of parameters", registry.OPTIM_WRAPPER_CONSTRUCTORS),
            Part("Schedules", registry.PARAM_SCHEDULERS),
            Part("Loops", registry.LOOPS),
        ),
    ),
    "hooks": Page("Hook types", "``default_hooks`` and ``custom_hooks``.", (Part("", registry.HOOKS),)),
    "logging": Page(
        "Logging and mmengine's parts",
        "``visualizer`` with its ``vis_backends``, ``log_processor``, and what mmengine builds by itself.",
        (
            Part("Visualizers", registry.VISUALIZERS),
            Part("Backends of visualizers", registry.VISBACKENDS),
            Part("Log processors", registry.LOG_PROCESSORS),
            Part("Evaluators", registry.EVALUATORS),
            Part("Wrappers of models", registry.MODEL_WRAPPERS),
        ),
    ),
}


def pages() -> dict[str, str]:
    """Return the pages of the reference by name, as reStructuredText."""
    written = {name: _registered(page) for name, page in PAGES.items()}
    return {**written, "commands": options.page(), "python": api.page()}


def _registered(page: Page) -> str:
    text = heading(page.title, "=") + page.text + "\n\n"
    for part in page.parts:
        found = entries(part.registry, part.homes, "~" if part.title else "-")
        text += (heading(part.title, "-") if part.title and found else "") + found
    return text + others(dict.fromkeys(part.registry for part in page.parts))


def write_pages(app: Sphinx) -> None:
    write({HERE / f"{name}.rst": text for name, text in pages().items()})


def _registered_classes() -> set[Any]:
    kinds = [kind for kind in vars(registry).values() if isinstance(kind, Registry)]
    return {kind.get(name) for kind in kinds for name in kind.names()}


def describe(app: Sphinx, what: str, name: str, target: Any, options: Any, lines: list[str]) -> None:
    """Put types and defaults to the arguments of what configs name, and those that its base takes."""
    if app.env.docname.startswith("reference/") and is_configured(target):
        fields = "\n".join(line for argument in arguments(target) for line in _field(argument))
        lines[:] = [*with_fields("\n".join(lines), fields).splitlines(), ""]


def hide_signature(app: Sphinx, what: str, name: str, target: Any, *_: Any) -> tuple[str, str] | None:
    """Leave the signature out where the list of arguments says it all."""
    return ("", "") if is_configured(target) else None


def is_configured(target: Any) -> bool:
    return callable(target) and hasattr(target, "__module__") and is_ours(target) and target in CONFIGURED


def _field(argument: Argument) -> list[str]:
    default = "" if argument.default is None else f", default ``{argument.default}``"
    kind = f"``{argument.type}``" if argument.type else ""
    return [f":param {argument.name}: {argument.text}", f":type {argument.name}: {kind}{default}"]


def resolve(app: Sphinx, env: Any, node: Any, content: nodes.Node) -> nodes.Node | None:
    """Link a name in a docstring to the entry that ends with it; a name without an entry is plain code.

    Docstrings name what their reader has at hand, and types of other libraries have no page here.
    """
    if node.get("refdomain") != "py":
        return None
    domain, target = env.get_domain("py"), node["reftarget"].removeprefix("~")
    found = [name for name in domain.objects if name == target or name.endswith(f".{target}")]
    if len(found) != 1:
        return content
    item = domain.objects[found[0]]
    uri = app.builder.get_relative_uri(node["refdoc"], item.docname)
    reference = nodes.reference("", "", internal=True, refuri=f"{uri}#{item.node_id}")
    reference.append(content)
    return reference


def put_dashes(app: Sphinx, tree: nodes.document) -> None:
    """Exchange what Sphinx puts between an argument and its text; smart quotes, which would, are off."""
    for text in list(tree.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" \N{EN DASH} "))


CONFIGURED: set[Any] = set()


def setup(app: Sphinx) -> dict[str, Any]:
    CONFIGURED.update(t for t in _registered_classes() if inspect.isclass(t))
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", describe, priority=400)  # before napoleon, which reads what is left
    app.connect("autodoc-process-signature", hide_signature)
    app.connect("missing-reference", resolve)
    app.connect("doctree-read", put_dashes)
    return {"parallel_read_safe": True}
