"""SegFormer of densevit against that of transformers: same weights, inputs, precision and process.

    python benchmarks/segformer.py [--device cuda] [--compile] [--out FILE.md]

A row is the median of alternating runs, ours and theirs in turn, so that a drift of the machine meets both.
Training is a step on two images: forward, cross entropy at full resolution, backward, AdamW. Memory is the peak
beyond that of the built model, each measured in a process of its own.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from timing import Step, alternate, peak_memory, report
from torch import Tensor, nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from densevit import create_model, load_weights
from densevit.model import DenseModel
from densevit.structures import Meta, Sample, SegTarget

NUM_CLASSES, SIZE = 150, 512
WIDE = {"hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 768}
PEERS = {"mit_b0": {}, "mit_b1": WIDE | {"decoder_hidden_size": 256}, "mit_b2": WIDE | {"depths": [3, 4, 6, 3]}}
SIDES = ("ours", "theirs")


@dataclass(frozen=True)
class Case:
    """One row: what is run, on which model, how."""

    model: str
    training: bool
    bf16: bool
    compiled: bool = False

    def __str__(self) -> str:
        words = ["training" if self.training else "inference", "bf16" if self.bf16 else "fp32"]
        return f"{self.model} {' '.join(words)}{' compiled' if self.compiled else ''}"


def main() -> None:
    """Measure and print."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    if args.probe:
        case = Case(args.probe[1], *(word == "True" for word in args.probe[2:]))
        model = build(case, args.device)[SIDES.index(args.probe[0])]
        print(peak_memory(step(case, model, args.device), args.device))
        return
    header = ("", "ours ms", "transformers ms", "speed-up", "difference of logits", "ours MB", "transformers MB")
    report(header, cases(args), lambda case: measure(case, args), args.device, args.out)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["mit_b0", "mit_b2"], choices=PEERS)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="run the rows whose name contains this")
    parser.add_argument("--compile", action="store_true", help="add rows under torch.compile")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    parser.add_argument("--probe", nargs=5, help=argparse.SUPPRESS)
    return parser.parse_args()


def cases(args: argparse.Namespace) -> Iterator[Case]:
    """Yield the rows that were asked for."""
    for model in args.models:
        for training in (False, True):
            for bf16 in (False, True):
                for compiled in (False, True) if args.compile else (False,):
                    case = Case(model, training, bf16, compiled)
                    if args.only in str(case):
                        yield case


def measure(case: Case, args: argparse.Namespace) -> tuple[str, ...]:
    """Return the cells of a row."""
    ours, theirs = build(case, args.device)
    steps = [step(case, model, args.device) for model in (ours, theirs)]
    difference = compare(case, ours, theirs, args.device)
    seconds = alternate(steps, args.repeats, args.device)
    memory = ["", ""] if case.compiled else [f"{probe(case, side, args):.0f}" for side in SIDES]
    times = [f"{1000 * s:.0f}" for s in seconds]
    return (str(case), *times, f"{seconds[1] / seconds[0]:.2f}x", f"{difference:.1e}", *memory)


def build(case: Case, device: str) -> tuple[DenseModel, nn.Module]:
    """Return both models with the same weights."""
    torch.manual_seed(0)
    theirs = SegformerForSemanticSegmentation(SegformerConfig(num_labels=NUM_CLASSES, **PEERS[case.model]))
    for name, module in theirs.named_modules():
        if isinstance(module, nn.LayerNorm) and not ("patch_embeddings" in name or "reduction" in name):
            module.eps = 1e-6  # as in the official release
    channels = theirs.config.decoder_hidden_size
    ours = create_model(case.model, "segmentation", NUM_CLASSES, head={"channels": channels})
    load_weights(ours, theirs.state_dict(), verbose=False)
    ours.precision = "bf16" if case.bf16 else "fp32"
    return ours.to(device).train(case.training), theirs.to(device).train(case.training)


def inputs(case: Case, device: str) -> tuple[Tensor, Tensor]:
    """Return random images and labels."""
    rng = torch.Generator().manual_seed(1)
    batch = 2 if case.training else 1
    labels = torch.randint(NUM_CLASSES, (batch, SIZE, SIZE), generator=rng)
    return torch.randn(batch, 3, SIZE, SIZE, generator=rng).to(device), labels.to(device)


def step(case: Case, model: nn.Module, device: str) -> Step:
    """Return what is timed."""
    x, labels = inputs(case, device)
    run = torch.compile(model) if case.compiled else model
    ours = isinstance(model, DenseModel)
    samples = [Sample(x[0], SegTarget(mask), Meta("", (SIZE, SIZE), (SIZE, SIZE))) for mask in labels]
    autocast = torch.autocast(device, torch.bfloat16, enabled=case.bf16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-8)

    def infer() -> Tensor:
        with torch.inference_mode(), autocast:
            return run(x) if ours else run(x).logits

    def train() -> None:
        optimizer.zero_grad()
        with autocast:
            loss = run(x, samples, mode="loss")["loss_seg"] if ours else run(x, labels=labels).loss
        loss.backward()
        optimizer.step()

    return train if case.training else infer


def compare(case: Case, ours: DenseModel, theirs: nn.Module, device: str) -> float:
    """Return the largest difference of the logits in evaluation, relative to their range."""
    x, _ = inputs(case, device)
    ours.eval(), theirs.eval()
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=case.bf16):
        a, b = ours(x).float(), theirs(x).logits.float()
    ours.train(case.training), theirs.train(case.training)
    return ((a - b).abs().max() / (b.max() - b.min())).item()


def probe(case: Case, side: str, args: argparse.Namespace) -> float:
    """Return `peak_memory` as measured in a fresh process."""
    words = [side, case.model, str(case.training), str(case.bf16), str(case.compiled)]
    command = [sys.executable, __file__, "--device", args.device, "--threads", str(args.threads), "--probe", *words]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output.splitlines()[-1])


if __name__ == "__main__":
    main()
