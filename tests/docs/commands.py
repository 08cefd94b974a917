"""What the commands of a page do in tests: ours run in this process, briefly, and others are not called."""

import ast
import contextlib
import importlib.util
import io
import os
import re
import runpy
import socket
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

from torch import distributed
from torch.distributed.run import get_args_parser

from densevit import commands
from tests.docs.blocks import ROOT, Block
from tests.docs.layouts import COUNTS, USUAL
from tests.docs.sandbox import BlockError, Sandbox
from tests.docs.shell import run_bash
from tests.docs.things import make_things

OURS = ("densevit", "python", "torchrun", "pip", "make", "tensorboard")
OTHERS = ("git", "sbatch", "srun", "scontrol", "curl", "wget", "docker", "conda", "uv", "apt", "ssh", "nvidia-smi")
TOOLS = {"model_info": "info", "publish_model": "publish", "browse_dataset": "browse-data"}  # others by their names
LEAST = {  # what makes commands quick, after the options of the page
    "demo": ("--port", "0"),
    "few-shot": ("--shots", "1", "2", "--seeds", "1"),
    "bench": ("--repeats", "1", "--batch-size", "1"),
    "segformer.py": ("--repeats", "1", "--only", "mit_b0 inference fp32"),
    "backbones.py": ("--repeats", "1", "--only", "mit_b0 inference fp32"),
    "detection.py": ("--repeats", "1", "--size", "128", "160", "--only", "retinanet inference"),
    "video.py": ("--repeats", "1", "--only", "mvitv2_s_16x4 inference fp32"),
    "decode.py": ("--repeats", "1"),
    "volume.py": ("--repeats", "1", "--volume", "128", "96", "96"),
}


def run_block(sandbox: Sandbox, block: Block) -> None:
    """Do what the convention says with a block.

    Raises:
        BlockError: It does not work.
    """
    if block.name is not None:
        sandbox.write(block)
    elif block.language == "python":
        sandbox.run_python(block)
    elif block.language == "bash":
        make_things(block.text)  # before bash looks for what is there
        commands_of_block = Commands(sandbox)
        code, printed = run_bash(block.text, Path.cwd(), (*OURS, *OTHERS), commands_of_block.answer)
        if code or (commands_of_block.failed and "||" not in block.text):  # `a && b` is no failure to bash
            failed = re.search(r"^exit code \d+ of line (\d+)$", printed, re.MULTILINE)
            raise BlockError(block, block.line - 1 + int(failed[1]) if failed else block.line, printed[-3000:])


class Commands:
    """Answers commands in a sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox, self.failed = sandbox, False

    def answer(self, word: str, arguments: list[str], content: str) -> tuple[int, str]:
        """Do what a command does; return its exit code and what it prints."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                self._do(word, arguments, content)
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
                if isinstance(end.code, str):
                    print(end.code)
            except Exception:
                traceback.print_exc()
                code = 1
            finally:
                self.sandbox.arguments = []
        self.failed |= code != 0
        return code, printed.getvalue()

    def _do(self, word: str, arguments: list[str], content: str) -> None:
        match word:
            case "densevit":
                self._densevit(arguments)
            case "python":
                self._python(arguments, content)
            case "torchrun":
                with alone():
                    self._python(one_process(arguments), "")
            case "pip":
                check_pip(arguments)
            case "make":
                if unknown := unknown_targets(arguments):
                    sys.exit(f"the Makefile has no target {', '.join(unknown)}")
            case "tensorboard":
                check_logs(arguments)
            case _:
                sys.exit(f"{word} is not called: write <!-- not run: REASON --> on the line before the block")

    def _densevit(self, arguments: Sequence[str]) -> None:
        self._prepare(arguments)
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(sys, "argv", ["densevit", *self.sandbox.arguments]))
            if arguments[:1] == ["demo"]:  # which would serve until it is stopped, and then end this process
                if importlib.util.find_spec("gradio") is None:
                    return
                stack.enter_context(mock.patch("densevit.web.server.serve", side_effect=SystemExit(0)))
            commands.main()

    def _python(self, arguments: list[str], content: str) -> None:
        if arguments[:2] == ["-m", "densevit"]:
            return self._densevit(arguments[2:])
        if arguments[:1] in (["-"], ["-c"]):
            code = content if arguments[0] == "-" else arguments[1]
            exec(compile(code, "<command>", "exec"), {"__name__": "__main__"})
            return None
        path = Path(arguments[0])
        if path.parts[:-1] == ("tools",):
            return self._densevit([TOOLS.get(path.stem, path.stem.replace("_", "-")), *arguments[1:]])
        path = path.absolute() if path.is_file() else ROOT / path
        self._prepare([path.name, *arguments[1:]])
        with (
            mock.patch.object(sys, "argv", [str(path), *self.sandbox.arguments[1:]]),
            mock.patch.object(sys, "path", [str(path.parent), *sys.path]),
        ):
            runpy.run_path(str(path), run_name="__main__")
        return None

    def _prepare(self, arguments: Sequence[str]) -> None:
        """Set the arguments of the command; make what they name and is not there."""
        sandbox, name = self.sandbox, arguments[0] if arguments else ""
        # a test machine needs no compiler
        given = [*(each for each in arguments if each != "--compile"), *LEAST.get(name, ())]
        if name == "make-demo-data":
            train, val = COUNTS.get(arguments[1], USUAL)
            given += ["--train", str(train), "--val", str(val)]
        sandbox.arguments = given
        if name == "train" and "--resume" in given and not sandbox.checkpoints(sandbox.work_dir()):
            self._densevit(given[: given.index("--resume")])  # what is gone on with
            sandbox.arguments = given
        for each in sandbox.arguments:
            sandbox.have_checkpoint(each)
            if name != "train" and re.fullmatch(r"work_dirs/\w+", each):
                sandbox.have_run(Path(each))


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Be what torchrun starts, the only process of its group."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ranks = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    with mock.patch.dict(os.environ, {**ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}):
        try:
            yield
        finally:
            if distributed.is_initialized():
                distributed.destroy_process_group()


def one_process(arguments: Sequence[str]) -> list[str]:
    """Return what torchrun, whose options must be known, has one process run."""
    args = get_args_parser().parse_args(arguments)
    return [*(["-m"] if args.module else []), args.training_script, *args.training_script_args]


def check_pip(arguments: Sequence[str]) -> None:
    """Exit unless this installs densevit with extras that it has."""
    targets = [each for each in arguments[1:] if not each.startswith("-")]
    for target in targets if arguments[:1] == ["install"] else [None]:
        found = re.fullmatch(r"(?:\.|densevit)(?:\[([\w,]+)\])?", target or "")
        if found is None:
            sys.exit("pip is not called: write <!-- not run: REASON --> on the line before the block")
        if unknown := set(filter(None, (found[1] or "").split(","))) - extras():
            sys.exit(f"setup.py has no extra {', '.join(unknown)}")


def extras() -> set[str]:
    """Return the names of the extras in setup.py."""
    nodes = ast.walk(ast.parse((ROOT / "setup.py").read_text()))
    (found,) = (node.value for node in nodes if isinstance(node, ast.keyword) and node.arg == "extras_require")
    assert isinstance(found, ast.Dict)
    return {key.value for key in found.keys if isinstance(key, ast.Constant)}


def check_logs(arguments: Sequence[str]) -> None:
    """Exit unless there is something that TensorBoard would show."""
    folder = Path(arguments[arguments.index("--logdir") + 1])
    if not any(folder.rglob("events.out.tfevents.*")):
        sys.exit(f"{folder} holds nothing for TensorBoard")


def unknown_targets(arguments: Sequence[str]) -> list[str]:
    """Return which of the arguments of make are no target of the Makefile."""
    known = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return [target for target in arguments if "=" not in target and target not in known]
