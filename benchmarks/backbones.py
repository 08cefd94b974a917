"""Backbones of densevit against those of other libraries: same weights, inputs, precision and process.

    python benchmarks/backbones.py [--models cmt_s ...] [--device cuda] [--bf16] [--compile] [--channels-last]

Classification, of images as `MODELS` says. A row is the median of runs of both sides in turn. Training is forward,
cross entropy, backward and AdamW, in training mode, with nothing dropped. MiT is compared with transformers; XCiT,
MViT, MobileViT, ViT, MLP-Mixer and ConvMixer with timm; CMT, CCT, DHVT and DeepViT, which are in no library, with the
`plain_*.py` beside this file, written as their releases are.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import timm
import torch
from plain_cct import PlainCCT
from plain_cmt import PlainCMT
from plain_deepvit import PlainDeepViT
from plain_dhvt import PlainDHVT
from timing import Step, alternate, report
from timm.models.convmixer import ConvMixer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SegformerConfig, SegformerForImageClassification

from densevit import create_model, load_weights

WIDE = {"hidden_sizes": [64, 128, 320, 512]}


class MiTOfTransformers(SegformerForImageClassification):
    """Logits of transformers' SegFormer classifier, with the epsilons of the official release."""

    def __init__(self, **options: object) -> None:
        super().__init__(SegformerConfig(num_labels=1000, drop_path_rate=0.0, **options))
        for name, module in self.named_modules():
            if isinstance(module, nn.LayerNorm) and not ("patch_embeddings" in name or "reduction" in name):
                module.eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).logits


@dataclass(frozen=True)
class Model:
    """What a model of ours is compared with, and on what.

    Attributes:
        peer: Builds the other side.
        size: Side of the square images.
        batch: Number of images.
        classes: Number of classes.
        options: Of ours, that make it the same model.
    """

    peer: Callable[[], nn.Module]
    size: int = 224
    batch: int = 8
    classes: int = 1000
    options: dict[str, Any] = field(default_factory=dict)


SMALL_CONVMIXER = partial(ConvMixer, dim=256, depth=8, kernel_size=5, patch_size=2, num_classes=10)
MODELS = {
    "mit_b0": Model(MiTOfTransformers),
    "mit_b2": Model(partial(MiTOfTransformers, **WIDE, depths=[3, 4, 6, 3])),
    "cmt_ti": Model(partial(PlainCMT, "cmt_ti"), size=160),
    "cmt_s": Model(partial(PlainCMT, "cmt_s")),
    "mvitv2_t": Model(partial(timm.create_model, "mvitv2_tiny")),
    "mvitv2_s": Model(partial(timm.create_model, "mvitv2_small")),
    "xcit_nano_12_p16": Model(partial(timm.create_model, "xcit_nano_12_p16_224")),
    "xcit_small_12_p16": Model(partial(timm.create_model, "xcit_small_12_p16_224")),
    "cct_2_3x2_32": Model(
        partial(PlainCCT, "cct_2_3x2_32"), size=32, batch=128, classes=10, options={"attn_dropout": 0.0}
    ),
    "cct_14_7x2_224": Model(partial(PlainCCT, "cct_14_7x2_224"), options={"attn_dropout": 0.0}),
    "dhvt_tiny_cifar_patch4": Model(partial(PlainDHVT, "dhvt_tiny_cifar_patch4"), size=32, batch=64, classes=100),
    "dhvt_small_imagenet_patch16": Model(partial(PlainDHVT, "dhvt_small_imagenet_patch16")),
    "deepvit_16b": Model(partial(PlainDeepViT, "deepvit_16b")),
    "deepvit_s": Model(partial(PlainDeepViT, "deepvit_s")),
    "mobilevit_s": Model(partial(timm.create_model, "mobilevit_s"), size=256, options={"dropout": 0.0}),
    "mixer_b16": Model(partial(timm.create_model, "mixer_b16_224")),
    "convmixer_768_32": Model(partial(timm.create_model, "convmixer_768_32"), batch=2, options={"activation": "relu"}),
    "convmixer_256_8": Model(SMALL_CONVMIXER, size=32, batch=64, classes=10),
    "vit_s16": Model(partial(timm.create_model, "vit_small_patch16_224"), options={"gelu": "exact", "pool": "tok"}),
}


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
    header = ("", "images", "ours ms", "peer ms", "speed-up", "difference of logits")
    report(header, cases(args), lambda case: measure(case, args), args.device, args.out)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
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
    model = MODELS[case.model]
    theirs = model.peer()
    with torch.no_grad():
        for parameter in theirs.parameters():  # some classifiers begin with zeros: all logits would be equal
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    ours = create_model(case.model, num_classes=model.classes, head={"dropout": 0.0}, drop_path=0.0, **model.options)
    load_weights(ours, theirs.state_dict(), verbose=False)
    ours.precision = "bf16" if case.bf16 else "fp32"
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    models = [m.to(args.device).to(memory_format=layout).train(case.training) for m in (ours, theirs)]
    x = torch.randn(model.batch, 3, model.size, model.size, generator=torch.Generator().manual_seed(1))
    x = x.to(args.device).contiguous(memory_format=layout)
    difference = compare(case, models, x)
    seconds = alternate([step(case, m, x) for m in models], args.repeats, args.device)
    times = [f"{1000 * s:.0f}" for s in seconds]
    return (str(case), f"{model.batch} x {model.size}²", *times, f"{seconds[1] / seconds[0]:.2f}x", f"{difference:.1e}")


def step(case: Case, model: nn.Module, x: Tensor) -> Step:
    """Return what is timed."""
    run = torch.compile(model) if case.compiled else model
    labels = torch.arange(len(x), device=x.device) % MODELS[case.model].classes
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
