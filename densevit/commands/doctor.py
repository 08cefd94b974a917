"""Say what is installed here, what it can do, and what to mend. The exit code is 1 if there is something to mend."""

import argparse
import sys


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print it as JSON, for a report of a fault")


def main(args: argparse.Namespace) -> None:
    import dataclasses
    import json

    from rich.console import Console
    from rich.table import Table

    from densevit.diagnosis import diagnose

    found = diagnose()
    amiss = [finding for findings in found.values() for finding in findings if finding.mend]
    if args.json:
        print(json.dumps({title: [dataclasses.asdict(f) for f in found[title]] for title in found}, indent=1))
        sys.exit(1 if amiss else 0)
    console = Console(highlight=False, markup=False)
    for title, findings in found.items():
        table = Table(
            title=title, title_justify="left", title_style="bold", box=None, show_header=False, padding=(0, 2)
        )
        table.add_column(no_wrap=True, min_width=22)
        for finding in findings:
            table.add_row(finding.name, finding.found, style="bold red" if finding.mend else "")
        console.print(table)
        console.print()
    if len(amiss) > 1:
        console.print("What stands first may be the reason for what follows.")
    for finding in amiss:
        console.print(f"to mend: {finding.name}: {finding.found}\n  {finding.mend}")
    if not amiss:
        console.print("nothing to mend")
    sys.exit(1 if amiss else 0)
