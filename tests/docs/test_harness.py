"""Pages with mistakes in them fail, at the line of the mistake."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from densevit.engine import config as configs
from densevit.errors import ConfigError
from densevit.registry import BACKBONES
from tests.docs.blocks import Block, parse_blocks
from tests.docs.commands import Commands, run_block
from tests.docs.reading import check_python, wrong_options
from tests.docs.sandbox import BlockError, Sandbox
from tests.docs.shell import run_bash
from tests.docs.shortening import Schedule

Open = Callable[[str], Sandbox]


def block(language: str, text: str, line: int = 5) -> Block:
    return Block("docs/page.md", line, language, text, None)


def test_blocks_have_their_line_language_file_and_reason() -> None:
    text = "# Page\n\n<!-- not run: no GPU -->\n```bash\nls\n```\n"
    text += "\n- item\n\n  ```python\n  # a/mine.py\n  model = 1\n  ```\n"
    first, second = parse_blocks(text, "page.md")
    assert (str(first), first.language, first.text, first.reason) == ("page.md:5", "bash", "ls\n", "no GPU")
    assert (str(second), second.text, second.reason) == ("page.md:11", "# a/mine.py\nmodel = 1\n", None)
    assert second.name == "a/mine.py"
    assert second.is_config
    assert not first.is_config
    with pytest.raises(ValueError, match=r"page\.md:3: the block is not closed"):
        parse_blocks("a\n\n```bash\nls\n", "page.md")


def test_options_that_a_command_does_not_know_are_named_with_their_line() -> None:
    torchrun = "ls && torchrun --nproc-per-node 2 \\\n    tools/train.py x --sed 1\n"
    text = f"densevit info mit_b0 | head -n 3\n{torchrun}densevit trian\n"
    wrong = [each.split(": ")[0] for each in wrong_options(block("bash", text))]
    assert wrong == ["docs/page.md:6", "docs/page.md:8"]
    assert list(wrong_options(block("bash", "pip install densevit\ndensevit train x --seed 1  # --sed\n"))) == []


@pytest.mark.parametrize(
    "text",
    [
        'model = dict(inference=dict(type="SlidingVolume", windows=(1, 1, 1)))',
        'sampling = dict(type="DenseSampling", frames=2, intervall=1)',
        "train_dataloader = dict(batch_sise=2)",
    ],
)
def test_a_part_of_a_config_with_a_wrong_key_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="Did you mean"):
        check_python(block("python", text))


def test_python_fails_at_the_line_of_the_page_with_what_was_printed(open_sandbox: Open) -> None:
    sandbox = open_sandbox("docs/page.md")
    run_block(sandbox, block("python", "a = 1\n"))
    with pytest.raises(BlockError, match=r"(?s)docs/page\.md:7\nfound 1.*ZeroDivisionError"):
        run_block(sandbox, block("python", 'print("found", a)\n\n1 / 0\n'))


def test_bash_fails_at_the_line_of_the_page(open_sandbox: Open) -> None:
    sandbox = open_sandbox("docs/page.md")
    with pytest.raises(
        BlockError, match=r"(?s)docs/page\.md:6\none\n.*error: no command 'trian'. Did you mean 'train'"
    ):
        run_block(sandbox, block("bash", "echo one\ndensevit trian x\necho two\n"))
    with pytest.raises(BlockError, match="no command 'trian'"):
        run_block(sandbox, block("bash", "densevit trian x && echo one\necho two\n"))
    run_block(sandbox, block("bash", "densevit trian x || echo one\n"))


def test_bash_finds_what_a_page_speaks_of(open_sandbox: Open) -> None:
    run_block(open_sandbox("docs/page.md"), block("bash", "ls photo.jpg photos/*.jpg clips/*.mp4 scan.nii.gz\n"))


def test_bash_has_all_of_bash_and_our_words(tmp_path: Path) -> None:
    calls = []

    def answer(word: str, arguments: list[str], content: str) -> tuple[int, str]:
        calls.append((word, arguments, content))
        return (3 if arguments == ["fail"] else 0), "b\na\n"

    (tmp_path / "x.jpg").touch()
    text = (
        "run=here; python - <<'END' | sort\nprint(1)\nEND\ndensevit predict $run *.jpg '*.png'\ndensevit fail || true\n"
    )
    assert run_bash(text, tmp_path, ("python", "densevit"), answer) == (0, "a\nb\nb\na\nb\na\n")
    assert calls[:2] == [("python", ["-"], "print(1)\n"), ("densevit", ["predict", "here", "x.jpg", "*.png"], "")]
    code, printed = run_bash("densevit fail\nls\n", tmp_path, ("densevit",), answer)
    assert (code, printed) == (3, "b\na\nexit code 3 of line 1\n")


@pytest.mark.parametrize(
    ("word", "arguments", "says"),
    [
        ("pip", ["install", "densevit[wep]"], "no extra wep"),
        ("pip", ["install", "numpy"], "not run: REASON"),
        ("make", ["tset"], "no target tset"),
        ("git", ["clone", "x"], "not run: REASON"),
    ],
)
def test_what_is_not_called_is_checked_or_refused(
    open_sandbox: Open, word: str, arguments: list[str], says: str
) -> None:
    code, printed = Commands(open_sandbox("docs/page.md")).answer(word, arguments, "")
    assert code
    assert says in printed


def test_extras_and_targets_that_exist_pass(open_sandbox: Open) -> None:
    answer = Commands(open_sandbox("docs/page.md")).answer
    assert answer("pip", ["install", "-e", ".[export,plots]"], "") == (0, "")
    assert answer("make", ["test", "PYTHON=python3.12"], "") == (0, "")


def test_a_config_of_a_page_must_be_right(open_sandbox: Open) -> None:
    sandbox = open_sandbox("docs/page.md")
    text = '# mine.py\n_base_ = ["densevit::segformer_b0_camvid.py"]\nmodel = dict(head=dict(clases=2))\n'
    with pytest.raises(BlockError, match=r"docs/page\.md:5(?s:.*)takes no 'clases'"):
        run_block(sandbox, block("python", text))


def test_a_run_has_the_checkpoints_that_its_recipe_saves_and_no_others(open_sandbox: Open) -> None:
    sandbox = open_sandbox("docs/page.md")
    for name in ("iter_700", "iter_650", "iter_800"):
        sandbox.have_checkpoint(f"work_dirs/segformer_b0_shapes/{name}.pth")
    assert {path.name for path in Path("work_dirs/segformer_b0_shapes").glob("*.pth")} == {"iter_1.pth", "iter_700.pth"}
    assert Schedule(True, 12, 1).saves("epoch", 12)
    assert not Schedule(True, 12, 1).saves("iter", 12)


def test_a_page_leaves_nothing_behind(tmp_path: Path) -> None:
    load, before, folder = configs.load_config, BACKBONES.names(), Path.cwd()
    sandbox = Sandbox("docs/page.md", tmp_path / "generated")
    with sandbox.open(tmp_path / "sandbox"):
        text = "# of_a_page.py\nfrom densevit import BACKBONES\n\n\n"
        text += "@BACKBONES.register_module()\nclass OfAPage:\n    pass\n"
        run_block(sandbox, block("python", text))
        run_block(sandbox, block("python", "import sys\nsys.path.append('.')\nimport of_a_page\n"))
        run_block(sandbox, block("python", "@of_a_page.BACKBONES.register_module()\nclass OfABlock:\n    pass\n"))
        assert {"OfAPage", "OfABlock"} <= set(BACKBONES.names())
        assert configs.load_config != load
    assert (configs.load_config, BACKBONES.names(), Path.cwd()) == (load, before, folder)
    assert "of_a_page" not in sys.modules
    assert not (tmp_path / "sandbox").exists()
