"""Print the backbones: parameters as a classifier, tasks, licence of official weights.

densevit list-models
densevit list-models 'xcit*p16' --macs
"""

import argparse

from rich.console import Console
from rich.progress import track

from densevit.tables import markdown_table, rich_table, table


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help="of names, such as 'mit*'")
    parser.add_argument(
        "--macs", action="store_true", help="count multiply-accumulates too: a second or more for each backbone"
    )
    parser.add_argument("--markdown", action="store_true", help="print a table of Markdown")


def main(args: argparse.Namespace) -> None:

    from densevit.api import HEAD_OF_TASK, describe_model, list_models
    from densevit.errors import ConfigError

    names = list_models(args.pattern)
    if not names:
        raise ConfigError(f"no backbone is called {args.pattern!r}; all of them: densevit list-models")
    console = Console(stderr=True)
    shown = track(names, "counting", console=console, transient=True, disable=not console.is_terminal)
    columns = ["backbone", "input", "params (M)", *(["MACs (G)"] if args.macs else []), "tasks", "official weights"]
    rows = []
    for card in (describe_model(name, args.macs) for name in shown):
        size = f"{card.num_frames} x {card.img_size}" if card.num_frames else str(card.img_size)
        macs = [] if card.macs is None else [f"{card.macs / 1e9:.2f}"]
        tasks = "all" if len(card.tasks) == len(HEAD_OF_TASK) else ", ".join(t for t in card.tasks)
        rows.append([card.name, size, f"{card.params / 1e6:.2f}", *macs, tasks, card.weights_licence])
    if args.markdown:
        print(markdown_table(columns, rows))
    elif (out := Console()).is_terminal:
        out.print(rich_table("backbones", columns, rows))
    else:
        print(table("backbones", columns, rows))
