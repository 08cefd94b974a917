"""UNETR and sliding windows of densevit against MONAI's: same weights, volumes and precision.

    python benchmarks/volume.py [--device cuda] [--only sliding] [--out FILE.md]

A row is the median of runs of both sides in turn. UNETR, as for BTCV, sees one volume of 96 voxels a side; training is
forward, Dice loss and cross entropy, backward and SGD. Windows of 96 voxels, half overlapping, run over a volume of
512 x 512 x 300 voxels to labels of 14 classes; the network is a mere product, so that the time is that of
blending. Memory is the peak beyond that of the built model and the volume, each measured in a process of its own.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import UNETR
from timing import Step, alternate, peak_memory, report
from torch import Tensor, nn

from densevit import create_model, load_weights
from densevit.structures import Meta, Sample, VolumeTarget
from densevit.tasks.medical import SlidingVolume

CLASSES, WINDOW = 14, 96
SIDES = ("ours", "theirs")


@dataclass(frozen=True)
class Case:
    """One row: what is run, and how."""

    what: str
    bf16: bool = False
    compiled: bool = False  # `timing.report` asks

    def __str__(self) -> str:
        return f"{self.what} {'bf16' if self.bf16 else 'fp32'}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=96, help="side of the volume that UNETR sees, in voxels")
    parser.add_argument("--volume", type=int, nargs=3, default=(512, 512, 300), help="what windows run over")
    parser.add_argument("--only", default="", help="run the rows whose name contains this")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    parser.add_argument("--probe", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.probe:
        side, what, bf16 = args.probe
        print(peak_memory(steps(Case(what, bf16 == "True"), args)[SIDES.index(side)], args.device))
        return
    header = ("", "ours ms", "MONAI ms", "speed-up", "difference", "ours MB", "MONAI MB")
    report(header, cases(args), lambda case: measure(case, args), args.device, args.out)


def cases(args: argparse.Namespace) -> Iterator[Case]:
    """Yield the rows that were asked for."""
    rows = [Case(what, bf16) for what in ("inference", "training") for bf16 in (False, True)]
    return (case for case in (*rows, Case("sliding")) if args.only in str(case))


def measure(case: Case, args: argparse.Namespace) -> tuple[str, ...]:
    """Return the cells of a row."""
    runs = steps(case, args)
    ours, theirs = (run() for run in runs)
    difference = (ours.float() - theirs.float()).abs().max() / theirs.float().abs().max()
    if case.what == "sliding":
        difference = (ours != theirs).float().mean()  # of the voxels
    seconds = alternate(runs, args.repeats, args.device)
    times = [f"{1000 * s:.0f}" for s in seconds]
    memory = [f"{probe(case, side, args):.0f}" for side in SIDES]
    return (str(case), *times, f"{seconds[1] / seconds[0]:.2f}x", f"{difference:.1e}", *memory)


def steps(case: Case, args: argparse.Namespace) -> list[Step]:
    """Return what is timed, of ours and of MONAI's. Each gives its logits, its loss or its labels."""
    torch.manual_seed(0)
    if case.what == "sliding":
        return blending(torch.randn(1, 1, *args.volume).to(args.device))
    theirs = UNETR(1, CLASSES, args.size, proj_type="perceptron")
    ours = create_model("unetr_vit_b16", "medical", CLASSES, img_size=args.size, proj_type="perceptron")
    load_weights(ours, theirs.state_dict(), verbose=False)
    ours.precision = "bf16" if case.bf16 else "fp32"
    models = [model.to(args.device).train(case.what == "training") for model in (ours, theirs)]
    build = training if case.what == "training" else inference
    return [build(model, case, args) for model in models]


def inference(model: nn.Module, case: Case, args: argparse.Namespace) -> Step:
    """Return a run without gradients."""
    x = torch.randn(1, 1, args.size, args.size, args.size, generator=torch.Generator().manual_seed(1)).to(args.device)

    def run() -> Tensor:
        with torch.inference_mode(), torch.autocast(args.device, torch.bfloat16, enabled=case.bf16):
            return model(x)

    return run


def training(model: nn.Module, case: Case, args: argparse.Namespace) -> Step:
    """Return a step of training."""
    rng, space = torch.Generator().manual_seed(1), (args.size,) * 3
    x = torch.randn(1, 1, *space, generator=rng).to(args.device)
    mask = torch.randint(0, CLASSES, space, generator=rng, dtype=torch.uint8).to(args.device)
    sample = Sample(x[0], VolumeTarget(mask, torch.ones(3)), Meta("", space, space))
    loss = DiceCELoss(to_onehot_y=True, softmax=True, squared_pred=True, smooth_nr=0, smooth_dr=1e-6)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9)

    def run() -> Tensor:
        optimizer.zero_grad()
        if isinstance(model, UNETR):
            with torch.autocast(args.device, torch.bfloat16, enabled=case.bf16):
                logits = model(x)
            total = loss(logits.float(), mask[None, None].long())
        else:
            total = torch.stack(list(model(x, [sample], mode="loss").values())).sum()
        total.backward()
        optimizer.step()
        return total.detach()

    return run


def blending(x: Tensor) -> list[Step]:
    """Return runs of windows over a volume."""
    weight = torch.randn(CLASSES, 1, 1, 1, generator=torch.Generator().manual_seed(1)).to(x)
    ours, size = SlidingVolume(window=(WINDOW,) * 3, batch_size=4), (WINDOW,) * 3

    def network(window: Tensor) -> Tensor:
        return window * weight

    def run_ours() -> Tensor:
        return ours(network, x)

    def run_theirs() -> Tensor:
        return sliding_window_inference(x, size, 4, network, 0.5, mode="gaussian").argmax(dim=1).to(torch.uint8)

    return [torch.inference_mode()(run) for run in (run_ours, run_theirs)]


def probe(case: Case, side: str, args: argparse.Namespace) -> float:
    """Return `peak_memory` as measured in a fresh process."""
    words = [side, case.what, str(case.bf16)]
    sizes = ["--size", str(args.size), "--volume", *map(str, args.volume), "--threads", str(args.threads)]
    command = [sys.executable, __file__, "--device", args.device, *sizes, "--probe", *words]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output.splitlines()[-1])


if __name__ == "__main__":
    main()
