"""``densevit analyze-attention`` from a checkout."""

from densevit.commands import run

if __name__ == "__main__":
    run("analyze-attention")
