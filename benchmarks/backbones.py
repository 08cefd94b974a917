"""Backbones of densevit against those of other libraries: same weights, inputs, precision and process.

    python benchmarks/backbones.py [--models cmt_s ...] [--device cuda] [--bf16] [--compile] [--channels-last]

Classification at 224 x 224 (CMT-Ti: 160) with batches of 8. A row is the median of runs of both sides in turn.
Training is forward, cross entropy, backward and AdamW, in training mode, paths not dropped. MiT is compared with
transformers, XCiT and MViT with timm; CMT, which is in no library, with `plain_cmt.py`, written as its release is.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import timm
import torch
from plain_cmt import PlainCMT
from timing import Step, alternate, report
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SegformerConfig, SegformerForImageClassification

from densevit import create_model, load_weights

BATCH = 8
WIDE = {"hidden_sizes": [64, 128, 320, 512]}


class MiTOfTransformers(nn.Module):
    """Logits of transformers' SegFormer classifier, with the epsilons of the official release."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.model = SegformerForImageClassification(SegformerConfig(num_labels=1000, drop_path_rate=0.0, **options))
        for name, module in self.model.named_modules():
            if isinstance(module, nn.LayerNorm) and not ("patch_embeddings" in name or "reduction" in name):
                module.eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).logits


PEERS: dict[str, Callable[[], nn.Module]] = {
    "mit_b0": MiTOfTransformers,
    "mit_b2": lambda: MiTOfTransformers(**WIDE, depths=[3, 4, 6, 3]),
    "cmt_ti": lambda: PlainCMT("cmt_ti"),
    "cmt_s": lambda: PlainCMT("cmt_s"),
    "mvitv2_t": lambda: timm.create_model("mvitv2_tiny"),
    "mvitv2_s": lambda: timm.create_model("mvitv2_small"),
    "xcit_nano_12_p16": lambda: timm.create_model("xcit_nano_12_p16_224"),
    "xcit_small_12_p16": lambda: timm.create_model("xcit_small_12_p16_224"),
}
SIZES = {"cmt_ti": 160}


@dataclass(frozen=True)
class Case:
    """One row: what is run, on which model, how."""

    model: str
    training: bool
    bf16: bool
    compiled: bool
    channels_last: bool

    def __str__(self) -> str:
        words = [self.model, "training" if self.training else "inference", "bf16" if self.bf16 else "fp32"]
        words += ["compiled"] * self.compiled + ["channels_last"] * self.channels_last
        return " ".join(words)


def main() -> None:
    """Measure and print."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    header = ("", "ours ms", "peer ms", "speed-up", "difference of logits")
    report(header, cases(args), lambda case: measure(case, args), args.device, args.out)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(PEERS), choices=PEERS)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="run the rows whose name contains this")
    parser.add_argument("--bf16", action="store_true", help="add rows under autocast to bf16")
    parser.add_argument("--compile", action="store_true", help="add rows under torch.compile")
    parser.add_argument("--channels-last", action="store_true", help="add rows with channels-last images and weights")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    return parser.parse_args()


def cases(args: argparse.Namespace) -> Iterator[Case]:
    """Yield the rows that were asked for."""
    switches = [(False, True) if on else (False,) for on in (args.bf16, args.compile, args.channels_last)]
    for values in product(args.models, (False, True), *switches):
        if args.only in str(case := Case(*values)):
            yield case


def measure(case: Case, args: argparse.Namespace) -> tuple[str, ...]:
    """Return the cells of a row."""
    torch.manual_seed(0)
    theirs = PEERS[case.model]()
    ours = create_model(case.model, drop_path=0.0, head={"dropout": 0.0})
    load_weights(
        ours, theirs.model.state_dict() if case.model.startswith("mit") else theirs.state_dict(), verbose=False
    )
    ours.precision = "bf16" if case.bf16 else "fp32"
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    models = [m.to(args.device).to(memory_format=layout).train(case.training) for m in (ours, theirs)]
    size = SIZES.get(case.model, 224)
    x = torch.randn(BATCH, 3, size, size, generator=torch.Generator().manual_seed(1))
    x = x.to(args.device).contiguous(memory_format=layout)
    difference = compare(case, models, x)
    seconds = alternate([step(case, model, x) for model in models], args.repeats, args.device)
    times = [f"{1000 * s:.0f}" for s in seconds]
    return (str(case), *times, f"{seconds[1] / seconds[0]:.2f}x", f"{difference:.1e}")


def step(case: Case, model: nn.Module, x: Tensor) -> Step:
    """Return what is timed."""
    run = torch.compile(model) if case.compiled else model
    labels = torch.arange(BATCH, device=x.device)
    autocast = torch.autocast(x.device.type, torch.bfloat16, enabled=case.bf16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-8)

    def infer() -> Tensor:
        with torch.inference_mode(), autocast:
            return run(x)

    def train() -> None:
        optimizer.zero_grad()
        with autocast:
            loss = F.cross_entropy(run(x).float(), labels)
        loss.backward()
        optimizer.step()

    return train if case.training else infer


def compare(case: Case, models: list[nn.Module], x: Tensor) -> float:
    """Return the largest difference of the logits in evaluation, relative to their range."""
    with torch.inference_mode(), torch.autocast(x.device.type, torch.bfloat16, enabled=case.bf16):
        a, b = (model.eval()(x).float() for model in models)
    for model in models:
        model.train(case.training)
    return ((a - b).abs().max() / (b.max() - b.min())).item()


if __name__ == "__main__":
    main()
