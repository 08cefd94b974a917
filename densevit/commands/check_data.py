"""Read every sample of a config's datasets, and list those that a run would replace or leave out.

densevit check-data segformer_b0_ade20k --split train --workers 8 --out report.jsonl

Of a video those frames are read that one clip has. The exit code is 1 if a sample cannot be read.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.config import Config
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from densevit.cli import add_config_options, config_from
from densevit.data.checks import shortened
from densevit.data.dataset import DenseDataset
from densevit.data.quarantine import describe
from densevit.data.scan import Tally, scan
from densevit.diagnosis import cores
from densevit.errors import ConfigError
from densevit.registry import DATASETS
from densevit.tables import rich_table

SPLITS = ("train", "val", "test")
LISTED = 30  # classes of which each gets a line
REFRESH = 0.1  # seconds


def add_options(parser: argparse.ArgumentParser) -> None:
    add_config_options(parser)
    parser.add_argument("--split", choices=(*SPLITS, "all"), default="all", help="whose samples are read (all)")
    parser.add_argument("--workers", type=int, default=cores(), help="processes that read (one per core)")
    parser.add_argument("--timeout", type=float, default=300, help="seconds after which a sample is bad (300)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the bad samples and a summary as JSON lines")


def main(args: argparse.Namespace) -> None:
    if args.workers < 1 or args.timeout <= 0:
        raise ConfigError("--workers and --timeout must be positive")

    if args.out is not None:
        write(args.out, [])  # hours of reading should not end with an error here
    cfg = config_from(args)
    datasets = {name: DATASETS.build(options) for name, options in datasets_of(cfg, args.split)}
    tallies = {name: Tally(dataset) for name, dataset in datasets.items()}
    with suppress(KeyboardInterrupt):  # what was read until then is told
        for name, dataset in datasets.items():
            read_all(name, dataset, args.workers, args.timeout, tallies[name])
    bad = [
        {"split": name, **describe(path, str(found.error), others)}
        for name, tally in tallies.items()
        for found in sorted(tally.bad, key=lambda found: found.index)
        for path, *others in [datasets[name].files_of(found.index)]
    ]
    summary = {name: tally.summary() for name, tally in tallies.items()}
    if args.out is not None:
        write(args.out, [*bad, {"config": args.config, "summary": summary}])
    show(summary, bad, args.out)
    if any(found["unread"] for found in summary.values()):
        sys.exit(130)
    sys.exit(1 if bad else 0)


def datasets_of(cfg: Config, split: str) -> Iterator[tuple[str, Any]]:
    """Yield names and configs of the datasets; splits of one dataset, as validation and test may be, are one.

    Raises:
        ConfigError: The config has no such split.
    """
    loaders = {name: cfg.get(f"{name}_dataloader") for name in (SPLITS if split == "all" else (split,))}
    options = {name: loader.dataset for name, loader in loaders.items() if loader is not None}
    if not options:
        raise ConfigError(f"the config has no {'' if split == 'all' else split + '_'}dataloader: nothing to read")
    while options:
        first = next(iter(options.values()))
        same = [name for name in options if options[name] == first]
        yield ", ".join(same), first
        options = {name: other for name, other in options.items() if name not in same}


def read_all(name: str, dataset: DenseDataset, workers: int, timeout: float, tally: Tally) -> None:
    """Count what is found of each sample, showing the progress on a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[bad]} bad"),
        TimeRemainingColumn(),
    )
    console, shown = Console(stderr=True), 0.0
    # No thread refreshes: processes are started meanwhile.
    with Progress(*columns, console=console, disable=not console.is_terminal, auto_refresh=False) as progress:
        task = progress.add_task(name, total=len(dataset), bad=0)
        for found in scan(dataset, workers, timeout):
            tally.add(found)
            progress.update(task, advance=1, bad=len(tally.bad))
            if time.monotonic() > shown + REFRESH:
                progress.refresh()
                shown = time.monotonic()
        progress.refresh()


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    """Write the report.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; choose another --out") from error


def show(summary: dict[str, Any], bad: list[dict[str, Any]], out: Path | None) -> None:
    """Print what was found."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    columns = ["samples", "good", "bad", *(["unread"] if any(found["unread"] for found in summary.values()) else [])]
    rows = [[name, *(found[column] for column in columns)] for name, found in summary.items()]
    console.print(rich_table("samples", ["split", *columns], rows))
    for name, found in summary.items():
        sizes = {kind: " x ".join(map(str, size)) for kind, size in found["sizes"].items()}
        if sizes:
            console.print(f"{name}: sizes from {sizes['smallest']} to {sizes['largest']}, median {sizes['median']}")
        by_samples = sorted(found["classes"].items(), key=lambda item: item[1]["samples"])
        rarest = f"the {LISTED} rarest of {len(by_samples)} " if len(by_samples) > LISTED else ""
        lines = by_samples[:LISTED] if rarest else found["classes"].items()
        if lines:
            rows = [[kind, count["samples"], f"{count['share']:.4f}"] for kind, count in lines]
            console.print(rich_table(f"{name}: {rarest}classes", ["class", "samples with it", "share of labels"], rows))
    for name in summary:
        errors = [entry["error"] for entry in bad if entry["split"] == name]
        lines = shortened(errors)
        for line in lines:
            console.print(f"{name}: {line}")
        if len(lines) < len(errors) and out is None:
            console.print("--out FILE lists all")
    if out is not None:
        console.print(f"report: {out}")
