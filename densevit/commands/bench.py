"""Time a model on this machine with random weights and inputs: evaluation, and forward and backward of training.

densevit bench segformer_b0_ade20k --batch-size 8
densevit bench mit_b0 --size 224 224 --compile

Data, losses and what is done with the outputs are left out: the report of a run has the time of all of it.
"""

import argparse

from densevit.errors import ConfigError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="CONFIG_OR_BACKBONE", help="a config, or the name of a backbone")
    sizes = (
        "height width; depth or time first. By default 512 512, and with three axes that of the training or 96 96 96"
    )
    parser.add_argument("--size", type=int, nargs="+", help=sizes)
    parser.add_argument("--batch-size", type=int, default=1, help="inputs at once (1)")
    parser.add_argument("--repeats", type=int, default=10, help="runs after a first one that does not count (10)")
    parser.add_argument("--device", help="cpu or cuda")
    parser.add_argument(
        "--amp", action=argparse.BooleanOptionalAction, help="bf16 autocast (default: where the device has it)"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile the backbone")
    parser.add_argument("--forward-only", action="store_true", help="evaluation alone")


def main(args: argparse.Namespace) -> None:
    if args.batch_size < 1 or args.repeats < 1:
        raise ConfigError("--batch-size and --repeats must be positive")

    import torch
    from rich.console import Console
    from rich.progress import Progress

    from densevit.engine.complexity import usual_size
    from densevit.engine.environment import choose_device, device_name
    from densevit.engine.named_model import named_model
    from densevit.engine.throughput import measure
    from densevit.model import DenseModel, has_fast_bf16
    from densevit.tables import rich_table

    device = choose_device(args.device)
    model, net = named_model(args.model)
    model.to(device)
    if args.compile:
        net.compile()
    size = tuple(args.size or usual_size(net))
    if len(size) != len(net.divisor):
        raise ConfigError(f"--size has {len(size)} numbers, but {args.model} reads {len(net.divisor)}")
    bf16 = has_fast_bf16(device.type) if args.amp is None else args.amp
    if isinstance(model, DenseModel):  # which has a precision of its own, within what is set from outside
        model.precision = "bf16" if bf16 else "fp32"
    inputs = torch.rand(args.batch_size, net.in_channels, *size, device=device)
    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        runs = bar.add_task("measuring", total=(2 - args.forward_only) * (args.repeats + 1))
        timings = list(measure(model, inputs, args.repeats, bf16, not args.forward_only, lambda: bar.advance(runs)))
    rows = [
        (t.name, f"{1e3 * t.seconds:.1f}", f"{t.rate:.2f}", "-" if t.memory is None else f"{t.memory / 2**30:.2f}")
        for t in timings
    ]
    title = f"{args.model}, {' x '.join(map(str, inputs.shape))}, {'bf16' if bf16 else 'fp32'}, {device_name()}"
    console.print(rich_table(title, ["", "ms", "inputs/s", "GPU memory (GiB)"], rows))
