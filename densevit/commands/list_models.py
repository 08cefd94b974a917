"""Print the backbones: parameters and multiply-accumulates (MACs) as a classifier, tasks, licence of official weights.

densevit list-models
densevit list-models 'xcit*p16' --markdown
"""

import argparse

from rich.console import Console
from rich.progress import track

from densevit.tables import rich_table

HEADER = ["backbone", "input", "parameters (M)", "MACs (G)", "tasks", "licence of the official weights"]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help="of names, such as 'mit*'")
    parser.add_argument("--markdown", action="store_true", help="print a table of Markdown")


def main(args: argparse.Namespace) -> None:

    from densevit.api import describe_model, list_models
    from densevit.errors import ConfigError

    names = list_models(args.pattern)
    if not names:
        raise ConfigError(f"no backbone is called {args.pattern!r}; all of them: densevit list-models")
    console = Console(stderr=True)
    shown = track(names, "counting", console=console, transient=True, disable=not console.is_terminal)
    cards = [describe_model(name) for name in shown]
    sizes = [f"{c.num_frames} x {c.img_size}" if c.num_frames else str(c.img_size) for c in cards]
    rows = [
        (c.name, size, f"{c.params / 1e6:.2f}", f"{c.macs / 1e9:.2f}", ", ".join(c.tasks), c.weights_licence)
        for c, size in zip(cards, sizes, strict=True)
    ]
    if args.markdown:
        lines = ["| " + " | ".join(row) + " |" for row in [HEADER, *rows]]
        print("\n".join([lines[0], "|---" * len(HEADER) + "|", *lines[1:]]))
    else:
        Console().print(rich_table("backbones", HEADER, rows))
