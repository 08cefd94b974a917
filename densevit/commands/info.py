"""Print parameters and multiply-accumulates (MACs) of a model, stage by stage.

densevit info segformer_b0_ade20k --size 512 512
densevit info mit_b0
densevit info timesformer_base --size 8 224 224
"""

import argparse

from rich.console import Console

from densevit.tables import rich_table


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="CONFIG_OR_BACKBONE", help="a config, or the name of a backbone")
    sizes = (
        "height width; depth or time first. By default 512 512, and with three axes that of the training or 96 96 96"
    )
    parser.add_argument("--size", type=int, nargs="+", help=sizes)
    parser.add_argument("--channels", type=int, help="of the input")


def main(args: argparse.Namespace) -> None:
    from densevit.engine.complexity import complexity, usual_size
    from densevit.engine.named_model import named_model

    model, net = named_model(args.model)
    size, channels = args.size or usual_size(net), args.channels or net.in_channels
    rows = [
        ("  " * part.depth + part.name, f"{part.params / 1e6:.3f}", f"{part.macs / 1e9:.3f}")
        for part in complexity(model, size, channels)
    ]
    title = f"{args.model}, input {channels} x {' x '.join(map(str, size))}"
    console = Console()
    console.print(rich_table(title, ["part", "parameters (M)", "MACs (G)"], rows))
    console.print("MACs of convolutions, linear layers and attention; 1 MAC = 2 FLOPs.", style="dim", highlight=False)
