"""Training in several processes: time of a step, what of it is communication, and what more processes would cost.

    python benchmarks/scaling.py [--processes 1 2] [--device cuda] [--out FILE.md]

Each process trains on a batch of its own under DDP, gradients in fp32. A step is forward, loss, backward, AdamW.
Measured are steps with and without the exchange of gradients (`no_sync`), in turn; their difference is what the
exchange costs beyond what hides behind the backward pass. An all-reduce of as many bytes, alone, gives the bandwidth.

The estimate for n processes assumes that nothing is hidden and that the slowest link has the bandwidth B:

    t(n) = t(without exchange) + 2 (n - 1) / n * bytes / B

which is a ring all-reduce without latency; processes are taken to be equally fast and the data to arrive in time.
On a CPU, processes share cores and memory: figures of one machine say what the exchange costs, not how it scales.
"""

import argparse
import os
import tempfile
import warnings
from pathlib import Path

import torch
from timing import alternate, machine, markdown
from torch import Tensor, distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from densevit import create_model
from densevit.model import DenseModel
from densevit.structures import Meta, Sample, SegTarget

NUM_CLASSES = 150
ESTIMATED = (2, 4, 8, 16, 32, 64)  # processes


def main() -> None:
    """Measure with each number of processes, print the table and the estimates."""
    args = parse_args()
    rows = [("processes", "step ms", "without exchange ms", "exchange seen", "exchange alone ms", "GB/s", "images/s")]
    for count in args.processes:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "figures"
            multiprocessing.spawn(measure, (count, Path(folder) / "store", file, args), nprocs=count)
            figures = torch.load(file, weights_only=True)
        seconds, compute, alone = figures["seconds"]
        bandwidth = ring(figures["bytes"], count) / alone / 1e9 if count > 1 else None
        shown = (f"{1000 * alone:.1f}", f"{bandwidth:.2f}") if bandwidth else ("", "")
        share = f"{max(0.0, 1 - compute / seconds):.0%}" if bandwidth else ""
        throughput = f"{count * args.batch_size / seconds:.1f}"
        rows.append((str(count), f"{1000 * seconds:.0f}", f"{1000 * compute:.0f}", share, *shown, throughput))
        print("  ".join(rows[-1]), flush=True)
        if count == min(args.processes):
            first = compute
    size = figures["bytes"]
    what = f"{args.model}, {args.batch_size} x {args.size} x {args.size} a process, {size / 1e6:.1f} MB of gradients"
    text = f"{what}, {machine(args.device)}\n\n{markdown(rows)}\n\n{estimates(first, size, args.bandwidth)}\n"
    print(f"\n{text}", end="")
    if args.out:
        args.out.write_text(text)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="mit_b0", help="a backbone; SegFormer's head is put on it")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch-size", type=int, default=2, help="of one process")
    parser.add_argument("--size", type=int, default=256, help="height and width of the images")
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument(
        "--bandwidth", type=float, nargs="+", default=[1.25, 12.5, 100], help="GB/s of the slowest link, to estimate by"
    )
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    return parser.parse_args()


def ring(size: float, count: int) -> float:
    """Return the bytes that each of ``count`` processes sends in a ring all-reduce of ``size`` bytes."""
    return 2 * (count - 1) / count * size


def measure(rank: int, count: int, store: Path, out: Path, args: argparse.Namespace) -> None:
    """Time steps in one of ``count`` processes; the first writes what it measured."""
    warnings.filterwarnings("ignore", "Grad strides")  # of kernels of one channel, where strides are any
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // max(args.processes)))
    cuda = args.device == "cuda"
    if cuda:
        torch.cuda.set_device(rank)
    distributed.init_process_group("nccl" if cuda else "gloo", f"file://{store}", rank=rank, world_size=count)
    torch.manual_seed(0)
    model = create_model(args.model, "segmentation", NUM_CLASSES).to(args.device).train()
    wrapped = DistributedDataParallel(model, device_ids=[rank] if cuda else None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-8)
    x, samples = batch(rank, args)

    def step() -> None:
        optimizer.zero_grad()
        losses = wrapped(x, samples, mode="loss")
        torch.stack([value for name, value in losses.items() if "loss" in name]).sum().backward()
        optimizer.step()

    def step_alone() -> None:
        with wrapped.no_sync():
            step()

    gradients = torch.zeros(gradient_size(model), device=args.device)
    steps = (step, step_alone, lambda: distributed.all_reduce(gradients))
    seconds = alternate(steps, args.repeats, args.device)
    if rank == 0:
        torch.save({"seconds": seconds, "bytes": 4 * gradients.numel()}, out)
    distributed.barrier()
    distributed.destroy_process_group()


def gradient_size(model: DenseModel) -> int:
    """Return the number of values that are exchanged per step."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def batch(rank: int, args: argparse.Namespace) -> tuple[Tensor, list[Sample]]:
    """Return random images and labels."""
    rng = torch.Generator().manual_seed(rank)
    size = (args.size, args.size)
    masks = torch.randint(NUM_CLASSES, (args.batch_size, *size), generator=rng).to(args.device)
    x = torch.randn(args.batch_size, 3, *size, generator=rng).to(args.device)
    return x, [Sample(x[0], SegTarget(mask), Meta("", size, size)) for mask in masks]


def estimates(compute: float, size: int, bandwidths: list[float]) -> str:
    """Return a table of the share of linear scaling that is left with more processes, by bandwidth in GB/s."""
    rows = [("estimated efficiency", *(f"{bandwidth:g} GB/s" for bandwidth in bandwidths))]
    for count in ESTIMATED:
        exchanges = [ring(size, count) / bandwidth / 1e9 for bandwidth in bandwidths]
        rows.append((f"{count} processes", *(f"{compute / (compute + exchange):.1%}" for exchange in exchanges)))
    return markdown(rows)


if __name__ == "__main__":
    main()
