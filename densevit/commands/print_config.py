"""Print a config with its bases and changes merged in: what a run would use."""

import argparse

from densevit.cli import add_config_options, config_from


def add_options(parser: argparse.ArgumentParser) -> None:
    add_config_options(parser)


def main(args: argparse.Namespace) -> None:
    print(config_from(args).pretty_text, end="")
