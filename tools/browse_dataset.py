"""``densevit browse-data`` from a checkout."""

from densevit.commands import run

if __name__ == "__main__":
    run("browse-data")
