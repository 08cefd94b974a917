"""Print a config with its bases and changes merged in: what a run would use."""

import argparse

from densevit.cli import add_config_options, config_from, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_options(parser)
    print(config_from(parser.parse_args()).pretty_text, end="")


if __name__ == "__main__":
    run(main)
