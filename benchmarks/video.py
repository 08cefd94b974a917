"""TimeSformer and MViTv2-S of densevit against transformers' and torchvision's: same weights, clips and precision.

    python benchmarks/video.py [--models timesformer_base ...] [--device cuda] [--only fp32] [--out FILE.md]

A row is the median of runs of both sides in turn, on one clip: 8 x 224 x 224 or 16 x 224 x 224. Training is forward,
cross entropy, backward and SGD, in training mode, with nothing dropped. Memory is the peak beyond that of the built
model, each measured in a process of its own.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from timing import Step, alternate, peak_memory, report
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.video import mvit_v2_s
from transformers import TimesformerConfig, TimesformerForVideoClassification

from densevit import create_model, load_weights

CLASSES, SIZE = 400, 224
FRAMES = {"timesformer_base": 8, "mvitv2_s_16x4": 16}
SIDES = ("ours", "theirs")


class TransformersTimeSformer(TimesformerForVideoClassification):
    """Logits of transformers' TimeSformer for clips with the channels first."""

    def __init__(self) -> None:
        super().__init__(TimesformerConfig(num_labels=CLASSES, drop_path_rate=0))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).logits


class TorchvisionMViT(nn.Module):
    """torchvision's MViTv2-S without dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.model = mvit_v2_s(num_classes=CLASSES, stochastic_depth_prob=0.0, dropout=0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


@dataclass(frozen=True)
class Case:
    """One row: what is run, on which model, how."""

    model: str
    training: bool
    bf16: bool
    compiled: bool = False

    def __str__(self) -> str:
        return f"{self.model} {'training' if self.training else 'inference'} {'bf16' if self.bf16 else 'fp32'}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(FRAMES), choices=FRAMES)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="run the rows whose name contains this")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    parser.add_argument("--probe", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.probe:
        case = Case(args.probe[1], *(word == "True" for word in args.probe[2:]))
        model = build(case, args.device)[SIDES.index(args.probe[0])]
        print(peak_memory(step(case, model, args.device), args.device))
        return
    header = ("", "ours ms", "theirs ms", "speed-up", "difference of logits", "ours MB", "theirs MB")
    report(header, cases(args), lambda case: measure(case, args), args.device, args.out)


def cases(args: argparse.Namespace) -> Iterator[Case]:
    """Yield the rows that were asked for."""
    rows = (Case(*row) for row in product(args.models, (False, True), (False, True)))
    return (case for case in rows if args.only in str(case))


def measure(case: Case, args: argparse.Namespace) -> tuple[str, ...]:
    """Return the cells of a row."""
    models = build(case, args.device)
    difference = compare(case, models, args.device)
    seconds = alternate([step(case, model, args.device) for model in models], args.repeats, args.device)
    times = [f"{1000 * s:.0f}" for s in seconds]
    memory = [f"{probe(case, side, args):.0f}" for side in SIDES]
    return (str(case), *times, f"{seconds[1] / seconds[0]:.2f}x", f"{difference:.1e}", *memory)


def build(case: Case, device: str) -> list[nn.Module]:
    """Return both models with the same weights."""
    torch.manual_seed(0)
    theirs = TransformersTimeSformer() if "timesformer" in case.model else TorchvisionMViT()
    ours = create_model(case.model, "video", CLASSES, drop_path=0.0)
    state = theirs.state_dict() if "timesformer" in case.model else theirs.model.state_dict()  # type: ignore[union-attr]
    load_weights(ours, state, verbose=False)
    ours.precision = "bf16" if case.bf16 else "fp32"
    return [model.to(device).train(case.training) for model in (ours, theirs)]


def clip(case: Case, device: str) -> Tensor:
    """Return a random clip."""
    rng = torch.Generator().manual_seed(1)
    return torch.randn(1, 3, FRAMES[case.model], SIZE, SIZE, generator=rng).to(device)


def step(case: Case, model: nn.Module, device: str) -> Step:
    """Return what is timed."""
    x, label = clip(case, device), torch.zeros(1, dtype=torch.long, device=device)
    autocast = torch.autocast(device, torch.bfloat16, enabled=case.bf16)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9)

    def infer() -> Tensor:
        with torch.inference_mode(), autocast:
            return model(x)

    def train() -> None:
        optimizer.zero_grad()
        with autocast:
            logits = model(x)
        F.cross_entropy(logits.float(), label).backward()
        optimizer.step()

    return train if case.training else infer


def compare(case: Case, models: list[nn.Module], device: str) -> float:
    """Return the largest difference of the logits in evaluation, relative to their range."""
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=case.bf16):
        a, b = (model.eval()(clip(case, device)).float() for model in models)
    for model in models:
        model.train(case.training)
    return ((a - b).abs().max() / (b.max() - b.min())).item()


def probe(case: Case, side: str, args: argparse.Namespace) -> float:
    """Return `peak_memory` as measured in a fresh process."""
    words = [side, case.model, str(case.training), str(case.bf16)]
    command = [sys.executable, __file__, "--device", args.device, "--threads", str(args.threads), "--probe", *words]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output.splitlines()[-1])


if __name__ == "__main__":
    main()
