"""The commands: ``densevit NAME ...``, each a module with its options and what it does.

A module's docstring is what ``--help`` says. It is imported when its command is called, and no other: `doctor` works
where torch does not.
"""

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from densevit import __version__
from densevit.errors import ConfigError, DensevitError, StoppedError

COMMANDS = {
    "train": "train a config, on one or many processes",
    "test": "score a checkpoint, or the predictions of another tool",
    "predict": "predict images, videos or volumes",
    "demo": "try a model on a page in the browser",
    "export": "write a model as ONNX or pt2",
    "publish": "make of a checkpoint a folder for others",
    "score": "score predictions that were written, without the model",
    "compare": "several runs side by side",
    "check-data": "read every sample, and list the bad ones",
    "browse-data": "draw what the network is shown",
    "make-demo-data": "generate a small dataset",
    "print-config": "a config with its bases merged in",
    "info": "parameters and MACs of a model, stage by stage",
    "bench": "time and memory of a model on this machine",
    "list-models": "the backbones, their size and licences",
    "few-shot": "linear probes of a backbone on few images",
    "plot-features": "features of a split, as a picture",
    "analyze-attention": "how similar the attention maps of layers are",
    "doctor": "what is installed here, and what to mend",
}


def run(name: str, argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Call a command, and exit as `ends` says.

    Args:
        name: One of `COMMANDS`.
        argv: Its arguments, by default those of the process.
        prog: What its ``--help`` calls it, by default the file that runs.
    """
    with ends():
        parser, main = command(name, prog)
        main(parser.parse_intermixed_args(argv))


def command(name: str, prog: str | None = None) -> tuple[argparse.ArgumentParser, Callable[[argparse.Namespace], None]]:
    """Return the parser of a command's options, and the function that takes what it parses."""
    module = import_module(f"{__name__}.{name.replace('-', '_')}")
    parser = argparse.ArgumentParser(
        prog, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    module.add_options(parser)
    return parser, module.main


@contextmanager
def ends() -> Iterator[None]:
    """Exit, after what is done within, with what tells the caller how it ended.

    2 after a `DensevitError`, printed in one piece; 75 (EX_TEMPFAIL) after a signal that stopped a run, which has said
    so; 130 after Ctrl-C anywhere else.
    """
    try:
        yield
    except StoppedError:
        sys.exit(os.EX_TEMPFAIL)
    except DensevitError as error:
        process = f" of process {os.environ['RANK']}" if int(os.environ.get("WORLD_SIZE", 1)) > 1 else ""
        print(f"error{process}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def main() -> None:
    """Call the command that the first argument names: the entry point of ``densevit``."""
    lines = "\n".join(f"  {name:<19}{text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        "densevit",
        usage="densevit COMMAND ...",
        description="Dense prediction with interchangeable vision backbones.",
        epilog=f"commands, each with a --help of its own:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"densevit {__version__}")
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    name, *rest = parser.parse_args().command or ["--help"]
    if name == "--help":
        parser.print_help()
        sys.exit(2)
    with ends():
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else "densevit --help lists them"
            raise ConfigError(f"no command {name!r}. {hint}")
    run(name, rest, f"densevit {name}")
