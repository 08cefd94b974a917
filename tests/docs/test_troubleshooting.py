"""Every error and warning of ours stands in docs/troubleshooting, word for word, and nothing else does.

An entry is an item of a list, or a row of a table, that starts with one or more messages as code.
"""

import importlib.util
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mmengine.config import Config
from torch import nn

from densevit import BACKBONES, create_model, load_weights
from densevit.commands import COMMANDS
from densevit.data.folders import list_files
from densevit.data.readers import read_image
from densevit.data.volume import read_volume
from densevit.engine.config import check_config, load_config
from densevit.errors import DensevitError
from densevit.inputs import find_files
from densevit.tasks.detection.coco_file import read_coco
from densevit.weights import read_file

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "troubleshooting"
OF_OTHERS = "machine.md"  # errors of libraries and of the system, which no source of ours has
MESSAGE = r"(`+)((?:(?!\1).)+)\1(?!`)"
IN_LIST = re.compile(MESSAGE + r"\\\n *", re.DOTALL)  # on lines of their own
IN_ROW = re.compile(MESSAGE + r"(?:, *| *(?=\|))", re.DOTALL)  # in the first cell
ENTRY = re.compile(r"^(?:- |\| )(?=`)", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#]+?\.md)(?:#([\w-]+))?\)")


def load_messages() -> ModuleType:
    """Import the module beside this one, which is in no package."""
    spec = importlib.util.spec_from_file_location("messages", Path(__file__).with_name("messages.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reader = load_messages()


@pytest.fixture(scope="module")
def told() -> dict[str, str]:
    return reader.messages()


def blocks(text: str) -> list[tuple[int, list[str], str]]:
    """Return the line of each item of a list, or row of a table, that starts with messages, these, and what follows."""
    found = []
    for start in ENTRY.finditer(text):
        row, at, messages = text[start.start()] == "|", start.end(), []
        while match := (IN_ROW if row else IN_LIST).match(text, at):
            messages.append(reader.normal(match[2]))
            at = match.end()
        end = re.compile(r"\n" if row else r"\n(?=\S)|\n\n(?! )|\Z").search(text, at)
        if messages:
            rest = text[at : end.start() if end else None].strip("| \n")
            found.append((text.count("\n", 0, start.start()) + 1, messages, rest))
    return found


def entries(page: Path) -> list[tuple[str, list[str], str]]:
    """Return the entries of a page: where they are, their messages, what they say."""
    return [(f"{page.name}:{line}", *entry) for line, *entry in blocks(page.read_text())]


def pages() -> list[Path]:
    return sorted(FOLDER.glob("*.md"))


def described() -> dict[str, str]:
    """Return the messages that have an entry, and where it is."""
    found = [entry for page in pages() if page.name != OF_OTHERS for entry in entries(page)]
    return {message: where for where, messages, _ in found for message in messages}


def test_each_message_has_an_entry(told: dict[str, str]) -> None:
    known = described()
    lacking = [f"{where}: {message}" for message, where in told.items() if message not in known]
    assert not lacking, "no entry in docs/troubleshooting:\n" + "\n".join(lacking)


def test_each_entry_is_a_message_of_the_source(told: dict[str, str]) -> None:
    stale = [f"{where}: {message}" for message, where in described().items() if message not in told]
    assert not stale, "no such message any more, or not word for word:\n" + "\n".join(stale)


def test_a_message_has_one_entry() -> None:
    every = [m for page in pages() for _, messages, _ in entries(page) for m in messages]
    assert [message for message, count in Counter(every).items() if count > 1] == []


def test_each_entry_says_what_to_do() -> None:
    bare = [where for page in pages() for where, _, text in entries(page) if len(text.split()) < 3]
    assert bare == []


def test_the_pages_can_be_found_from_the_first_and_links_lead_somewhere() -> None:
    first = FOLDER.with_suffix(".md")
    linked = {(first.parent / path).resolve() for path, _ in LINK.findall(first.read_text())}
    assert {page.resolve() for page in pages()} <= linked
    for page in (first, *pages()):
        for path, anchor in LINK.findall(page.read_text()):
            target = page.parent / path
            assert target.is_file(), f"{page.name} links to {path}"
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert not anchor or anchor in anchors, f"{page.name} links to {path}#{anchor}"


def test_the_commands_that_are_named_exist() -> None:
    named = {name for page in pages() for name in re.findall(r"`densevit ([a-z-]+)", page.read_text())}
    assert "check-data" in named <= COMMANDS.keys()


def wrong_key() -> None:
    check_config(Config({"train_dataloader": {"dataset": {}, "batch_size": 1, "shufle": True}}))


def no_weights() -> None:
    load_weights(nn.Identity(), {"state_dict": {"lr": 0.1}})


@pytest.mark.parametrize(
    ("fault", "page"),
    [
        (lambda folder: load_config("segformer_b0_ade2k"), "config.md"),
        (lambda folder: load_config(folder / "none.py"), "config.md"),
        (lambda folder: wrong_key(), "config.md"),
        (lambda folder: BACKBONES.build({"type": "mit_b7"}), "config.md"),
        (
            lambda folder: BACKBONES.build({"type": "XCiT", "dim": 128, "depth": 1, "num_heads": 4, "patch_size": 7}),
            "model.md",
        ),
        (lambda folder: create_model("mit_b0", task="segment"), "model.md"),
        (lambda folder: list_files(folder / "none", (".png",)), "images.md"),
        (lambda folder: list_files(folder, (".png",)), "images.md"),
        (lambda folder: read_image(folder / "none.png"), "images.md"),
        (lambda folder: read_coco(folder / "none.json"), "coco.md"),
        (lambda folder: read_volume(folder / "none.nii.gz"), "images.md"),
        (lambda folder: read_volume(folder), "volumes.md"),
        (lambda folder: read_file(folder / "none.pth"), "checkpoints.md"),
        (lambda folder: read_file(folder), "checkpoints.md"),
        (lambda folder: no_weights(), "checkpoints.md"),
        (lambda folder: find_files([folder / "none"]), "prediction.md"),
    ],
)
def test_an_error_as_it_is_printed_is_found(tmp_path: Path, fault: Callable[[Path], Any], page: str) -> None:
    with pytest.raises(DensevitError) as error:
        fault(tmp_path)
    text = " ".join(str(error.value).split())
    fitting = {where for message, where in described().items() if pattern(message).match(text)}
    assert any(where.startswith(page) for where in fitting), text


def pattern(message: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, message.split(reader.GAP))))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ('raise ConfigError(f"no config {path}. Try another")', "no config …. Try another"),
        ('raise DataError(f"{path}: " + ("torn" if a else "cut"))', "…: cut"),
        ('text = f"{path} is gone"\n    raise DataError(text)', "… is gone"),
        ("raise DataError(f\"{path}: damaged{hint if hint else ''}\")", "…: damaged"),
        ('raise DataError(f"{path}{explain(path)}")', "… lies … there"),
        ("warnings.warn(ONCE, stacklevel=2)", "said once"),
        ('raise NearError(f"near {path} {error}")', "near"),
    ],
)
def test_messages_are_read_from_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    (tmp_path / "densevit").mkdir()
    (tmp_path / "densevit" / "a.py").write_text(
        'ONCE = "said once"\nclass ConfigError(DensevitError): ...\nclass DataError(DensevitError): ...\n'
        'class NearError(DataError): ...\ndef explain(path):\n    return f" lies {where(path)} there"\n'
        f"def f(path):\n    {code}\n"
    )
    monkeypatch.setattr(reader, "ROOT", tmp_path)
    assert message in reader.messages()
