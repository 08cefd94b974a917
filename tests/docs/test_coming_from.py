"""The pages for those who come from other libraries name only what there is, here and there.

In a table, what stands in code in the column "densevit" is ours, and so is each option and key in it. What stands in
the column of a library that is installed (timm, MONAI, transformers, torchvision) is found in that library, or it is an
argument, an option of a script, or the script.
"""

import ast
import inspect
import pkgutil
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from mmengine.config import Config

import densevit
from densevit import registry
from densevit.commands import COMMANDS, command
from densevit.engine import config as config_keys
from densevit.errors import ConfigError
from densevit.model import DenseModel
from densevit.registry import Registry, accepted_keys

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/coming_from").glob("*.md"))
REGISTRIES = [value for value in vars(registry).values() if isinstance(value, Registry)]
# Where names of theirs are looked for; the rest of the pages is about libraries that are not installed.
LIBRARIES = {
    "timm": ("timm", "timm.data", "timm.models:VisionTransformer", "timm.models:FeatureListNet", "timm.utils"),
    "MONAI": (
        *("monai.transforms", "monai.data", "monai.losses", "monai.metrics", "monai.inferers", "monai.networks.nets"),
        *("monai.apps", "monai.utils"),
    ),
    "transformers": ("transformers",),
    "torchvision": ("torchvision.models", "torchvision.models.video", "torchvision.models.detection"),
}


class Code(NamedTuple):
    """What stands in code in a cell."""

    text: str
    where: str
    column: str


def cells(page: Path) -> Iterator[Code]:
    """Yield all code in the tables of a page."""
    header: list[str] = []
    fenced = False
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        fenced ^= line.startswith("```")
        if fenced or not line.startswith("|"):
            header = []
            continue
        row = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not header:
            header = row
            continue
        assert len(row) == len(header), f"{page.name}:{number}: {len(row)} cells under {len(header)} headings"
        for column, cell in zip(header, row, strict=True):
            for text in re.findall(r"`([^`]+)`", cell):
                yield Code(text.replace(r"\|", "|"), f"{page.name}:{number}", column.split(",")[0])


ALL = [code for page in PAGES for code in cells(page)]
OURS = [code for code in ALL if code.column == "densevit"]
THEIRS = [code for code in ALL if code.column in LIBRARIES]


def named(name: str) -> list[Registry]:
    return [kind for kind in REGISTRIES if name in kind.names()]


def takers(kind: Registry, key: str) -> bool:
    """Whether something that is registered takes a key."""
    return any(key in (accepted_keys(kind.get(name)) or ()) for name in kind.names())


PARTS = {
    "backbone": registry.BACKBONES,
    "neck": registry.NECKS,
    "head": registry.HEADS,
    "inference": registry.MODELS,
    "data_preprocessor": registry.MODELS,
    "auxiliary": registry.HEADS,
    "dataset": registry.DATASETS,
    "sampling": registry.SAMPLINGS,
    "optimizer": registry.OPTIMIZERS,
    "checkpoint": registry.HOOKS,
    "logger": registry.HOOKS,
    "val_evaluator": registry.METRICS,
    "test_evaluator": registry.METRICS,
    "param_scheduler": registry.PARAM_SCHEDULERS,
    "custom_hooks": registry.HOOKS,
    "visualizer": registry.VISUALIZERS,
}
SECTIONS = {
    "model": accepted_keys(DenseModel) | {"weights"},  # type: ignore[operator]
    "train_dataloader": config_keys.TRAIN_LOADER_KEYS,
    "val_dataloader": config_keys.LOADER_KEYS,
    "test_dataloader": config_keys.LOADER_KEYS,
    "multi_scale": config_keys.MULTI_SCALE_KEYS,
    **config_keys.LOOP_KEYS,
    "auto_scale_lr": config_keys.SCALE_KEYS,
    "parallel": {"type"},
    "env_cfg": {"dist_cfg"},
    "dist_cfg": config_keys.DIST_KEYS,
    "paramwise_cfg": config_keys.PARAMWISE_KEYS | {"layer_decay", "head_decay"},
    "optim_wrapper": accepted_keys(registry.OPTIM_WRAPPERS.get("OptimWrapper")) | {"paramwise_cfg", "constructor"},  # type: ignore[operator]
    "default_hooks": {"checkpoint", "logger", "progress", "report"},
    "randomness": {"seed", "deterministic", "diff_rank_seed"},
}
FREE = {"custom_keys", "compile", "clip_grad"}  # what is below them is not ours


def key_exists(dotted: str) -> bool:
    """Whether a dotted key may stand in a config; "head.channels" and "sampling.clips" are read as ends of one."""
    first, *rest = dotted.split(".")
    if first in config_keys.RUN_KEYS and not rest:
        return True
    for key in rest:
        if first in FREE:
            return True
        known = key in SECTIONS[first] if first in SECTIONS else first in PARTS and takers(PARTS[first], key)
        if not known:
            return False
        first = key
    return bool(rest)


def check_call(call: ast.Call) -> None:
    """Check ``dict(type="Name", key=...)``, ``Name(key=...)`` and ``densevit.function(key=...)``."""
    name = ast.unparse(call.func)
    keys = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    for value in [*call.args, *keys.values()]:
        check_tree(value)
    if name == "dict":
        if "type" not in keys:
            return
        kind = ast.literal_eval(keys.pop("type"))
        homes = named(kind)
    elif name.startswith("densevit."):
        target = attribute(densevit, name.removeprefix("densevit."))
        known, more = registry._parameters(target)
        assert more or keys.keys() <= known, f"{name} takes no {keys.keys() - known}"
        return
    else:
        kind, homes = name, named(name)
    assert homes, f"{kind} is not registered"
    known_keys = [accepted_keys(home.get(kind)) for home in homes]
    apart = {"constructor", "paramwise_cfg"} if kind == "OptimWrapper" else {"convert_to_iter_based", "priority"}
    assert any(known is None or keys.keys() - apart <= known for known in known_keys), f"{kind} takes no {keys.keys()}"


def check_tree(node: ast.expr) -> None:
    for inner in ast.iter_child_nodes(node) if not isinstance(node, ast.Call) else [node]:
        if isinstance(inner, ast.Call):
            check_call(inner)
        elif isinstance(inner, ast.expr):
            check_tree(inner)


def attribute(owner: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        owner = getattr(owner, part)
    return owner


def check_command(text: str) -> None:
    """Check a line such as ``densevit train CONFIG --amp``, or an option by itself."""
    words = shlex.split(text)
    if words[0].startswith("--"):
        assert any(words[0] in command(name)[0]._option_string_actions for name in COMMANDS), f"no option {words[0]}"
        return
    name, *rest = words[words.index("densevit") + 1 :]
    assert name in COMMANDS, f"no command {name}"
    try:
        command(name)[0].parse_intermixed_args(rest)
    except SystemExit:
        raise AssertionError(f"{text} is not how it is called") from None


def check(text: str) -> None:
    """Raise if something of ours is not there."""
    if text.startswith(("densevit ", "torchrun ", "--")):
        return check_command(text)
    if re.fullmatch(r"(configs|examples|docs|tools)/[\w./-]+", text):
        assert (ROOT / text).exists(), f"no file {text}"
        return None
    if re.fullmatch(r"[\w/-]+\.(txt|json|html|png)", text):
        return None  # files of a run, or of the user
    key, _, value = text.partition("=")
    if re.fullmatch(r"[a-z_][\w.]*", key.strip()) and value:
        dotted, tree = key.strip(), ast.parse(value.strip(), mode="eval").body
        check_tree(tree)
        assert "." not in dotted or key_exists(dotted), f"no key {dotted}"
        if "." not in dotted:
            assert dotted in config_keys.RUN_KEYS or any(takers(kind, dotted) for kind in REGISTRIES), f"no {dotted}"
        return None
    tree = ast.parse(text, mode="eval").body
    if isinstance(tree, ast.Call):
        return check_tree(tree)
    if text.startswith("densevit."):
        return attribute(densevit, text.removeprefix("densevit.")) and None
    if isinstance(tree, ast.Constant):
        return None
    assert re.fullmatch(r"[\w.]+", text), f"neither a name nor a key: {text}"
    public = hasattr(densevit, text.partition(".")[0]) and inspect.isclass(getattr(densevit, text.partition(".")[0]))
    if public:
        return attribute(densevit, text) and None
    found = named(text) or key_exists(text) or any(takers(kind, text) for kind in REGISTRIES)
    assert found, f"{text} is neither registered nor a key"
    return None


@pytest.mark.parametrize("code", OURS, ids=lambda code: f"{code.where} {code.text}")
def test_what_is_said_to_be_ours_is_there(code: Code) -> None:
    check(code.text)


@pytest.mark.parametrize(
    "text",
    [
        "model.hed.num_classes",
        "SegformerHead",
        'dict(type="FPN", num_out=5)',
        "densevit train CONFIG --lr 1",
        "densevit predict CONFIG",
        "--lr",
        "densevit trian",
        "train_dataloader.shuffel",
        "val_evaluator=dict(type='IoUMetric')",
        "densevit.loading_of_models",
        "configs/nothing.py",
        "dataset=dict(transforms=[dict(type='RandomFlip')])",
        "optim_wrapper.optimiser.lr",
    ],
)
def test_what_is_not_ours_is_noticed(text: str) -> None:
    with pytest.raises((AssertionError, ConfigError, AttributeError, SyntaxError)):
        check(text)


def find(library: str, name: str) -> Any:
    """Return what a name means in a library, or True for a model of timm, or an argument of a class in the list."""
    for owner in map(pkgutil.resolve_name, LIBRARIES[library]):
        try:
            return attribute(owner, name.removeprefix(f"{owner.__name__}."))
        except AttributeError:
            if inspect.isclass(owner) and name in inspect.signature(owner).parameters:
                return True
    if library != "timm":
        return None
    import timm

    return timm.is_model(name) or name in inspect.signature(timm.create_model).parameters


@pytest.mark.parametrize("code", THEIRS, ids=lambda code: f"{code.where} {code.text}")
def test_what_is_said_to_be_theirs_is_there(code: Code) -> None:
    pytest.importorskip(LIBRARIES[code.column][0].partition(".")[0])
    if re.search(r"^--|/|\.(py|sh)$", code.text):
        return  # options of their scripts, and files
    if "(" not in code.text:
        assert find(code.column, code.text.partition("=")[0]), code.text
        return
    call = ast.parse(code.text, mode="eval").body
    assert isinstance(call, ast.Call)
    target = find(code.column, ast.unparse(call.func))
    assert callable(target), code.text
    parameters = inspect.signature(target).parameters
    takes_more = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    keys = {keyword.arg for keyword in call.keywords}
    assert takes_more or keys <= parameters.keys(), f"{code.text}: it takes no {keys - parameters.keys()}"


def pairs_of_weights() -> list[tuple[str, str]]:
    """Return the names of timm's models and of ours that stand opposite each other in the table of weights."""
    text = (ROOT / "docs/coming_from/timm.md").read_text().partition("## Weights")[2].partition("| transformers")[0]
    pairs = []
    for line in text.splitlines():
        cells = [re.findall(r"`([^`]+)`", cell) for cell in line.split("|")]
        if line.startswith("|") and len(cells) == 5 and len(cells[1]) == len(cells[2]):
            pairs += list(zip(cells[1], cells[2], strict=True))
    return [(theirs, ours) for theirs, ours in pairs if ours.isidentifier() and theirs.islower()]


@pytest.mark.slow
@pytest.mark.parametrize(("theirs", "ours"), pairs_of_weights())
def test_weights_that_timm_is_said_to_share_are_taken_whole(theirs: str, ours: str) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):  # names and shapes; numbers are compared elsewhere
        state = timm.create_model(theirs).state_dict()
        options = {"gelu": "exact", "pool": "tok"} if ours.startswith("vit_") else {}
        report = densevit.load_weights(densevit.create_model(ours, **options), state, verbose=False)
    assert report.missing == report.unexpected == []
    assert report.skipped == report.resized == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_tables_a_config_and_the_differences_in_numbers(page: Path) -> None:
    text = page.read_text()
    assert sum(code.where.startswith(page.name) for code in OURS) >= 10
    assert "differ" in text.lower()


def configs(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the names and texts of the configs of ours on a page."""
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        name = re.match(r"# (configs/\S+\.py)\n", block)
        if name is not None:
            yield name[1], block


CONFIGS = [(page, name, text) for page in PAGES for name, text in configs(page)]


@pytest.mark.parametrize(("page", "name", "text"), CONFIGS, ids=[f"{p.stem} {n}" for p, n, _ in CONFIGS])
def test_a_config_of_a_page_is_loaded(page: Path, name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / Path(name).name
    path.write_text(text)
    cfg: Config = config_keys.load_config(path)
    assert cfg.model.type == "DenseModel"
