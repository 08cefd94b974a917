"""Compare runs by their folders, also while they train: a table of scores and costs, and their curves in one picture.

densevit compare work_dirs/segformer_b0_shapes work_dirs/other --out comparison
"""

import argparse
import os
from pathlib import Path

from rich.console import Console

from densevit.errors import DataError
from densevit.tables import markdown_table, rich_table


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("work_dirs", nargs="+", type=Path, metavar="RUN", help="work_dir of a training")
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="where compare.md and compare.png go (here)"
    )


def main(args: argparse.Namespace) -> None:

    from densevit.engine.comparison import compare
    from densevit.engine.curves import plot_curves, read_scalars

    runs = {name: (folder, read_scalars(folder)) for name, folder in named(args.work_dirs).items()}
    for folder, scalars in runs.values():
        if not scalars:
            raise DataError(
                f"{folder} has no log of a training ({folder}/<time>/vis_data/scalars.json): is that a work_dir?"
            )
    columns, rows = compare(runs)
    console = Console()
    # A line per property: the many columns of a table of runs do not fit a terminal.
    console.print(rich_table("runs", ["", *(row[0] for row in rows)], list(zip(columns, *rows, strict=True))[1:]))
    picture, text = args.out / "compare.png", args.out / "compare.md"
    plot_curves({name: scalars for name, (_, scalars) in runs.items()}, picture)
    text.write_text(f"# Comparison of runs\n\n{markdown_table(columns, rows)}\n\n![curves](compare.png)\n")
    print(f"wrote {text} and {picture}")


def named(folders: list[Path]) -> dict[str, Path]:
    """Return the folders by their names, with as much of the path before as tells them apart."""
    absolute = [os.path.abspath(folder) for folder in folders]
    if len(set(absolute)) < len(absolute):
        raise DataError("a folder is given twice")
    if len({os.path.basename(path) for path in absolute}) == len(absolute):
        return {os.path.basename(path): folder for path, folder in zip(absolute, folders, strict=True)}
    common = os.path.commonpath(absolute)
    return {os.path.relpath(path, common): folder for path, folder in zip(absolute, folders, strict=True)}
