"""RetinaNet and Mask R-CNN of densevit against torchvision's: the same ResNet-50, from timm, on both sides.

    python benchmarks/detection.py [--device cuda] [--bf16] [--size 800 1216] [--out FILE.md]

A row is the median of runs of both sides in turn, from images to losses or to objects at the original size, with
masks as large as the image. Training is forward, losses, backward and a step of SGD on one image with ten objects;
batch norms of ResNet-50 are in evaluation, as is usual. Weights are random, those of the heads large enough that both
sides find objects.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timing import Step, alternate, report
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool, LastLevelP6P7
from torchvision.tv_tensors import Image, Mask

from densevit import create_backbone, create_model
from densevit.structures import BoxTarget, Meta, Sample

CLASSES, OBJECTS = 80, 10
DETECTORS = ("retinanet", "mask_rcnn")
TASKS = {"retinanet": "detection", "mask_rcnn": "instance_segmentation"}


class Pyramid(nn.Module):
    """The backbone and torchvision's FPN, as its detectors want them."""

    def __init__(self, first: int, extra: nn.Module) -> None:
        super().__init__()
        self.backbone = create_backbone("timm", name="resnet50")
        self.first, self.out_channels = first, 256
        channels = [spec.channels for spec in self.backbone.specs[first:]]
        self.fpn = FeaturePyramidNetwork(channels, 256, extra)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.backbone(x).maps[self.first :]
        return self.fpn({str(i): m for i, m in enumerate(maps)})


@dataclass(frozen=True)
class Case:
    """One row: what is run, and how."""

    detector: str
    training: bool
    bf16: bool
    compiled: bool = False  # `timing.report` asks

    def __str__(self) -> str:
        return f"{self.detector} {'training' if self.training else 'inference'} {'bf16' if self.bf16 else 'fp32'}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1216), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--only", default="", help="run the rows whose name contains this")
    parser.add_argument("--bf16", action="store_true", help="add rows in bf16")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    header = ("", "ours ms", "torchvision ms", "speed-up", "objects found, ours", "torchvision")
    report(header, cases(args), lambda case: measure(case, args), args.device, args.out)


def cases(args: argparse.Namespace) -> Iterator[Case]:
    """Yield the rows that were asked for."""
    for detector in DETECTORS:
        for training in (False, True):
            for bf16 in (False, True) if args.bf16 else (False,):
                case = Case(detector, training, bf16)
                if args.only in str(case):
                    yield case


def measure(case: Case, args: argparse.Namespace) -> tuple[str, ...]:
    """Return the cells of a row."""
    steps = [build(case, args.size, args.device) for build in (our_step, their_step)]
    found = ["", ""] if case.training else [str(len(step())) for step in steps]
    seconds = alternate(steps, args.repeats, args.device)
    times = [f"{1000 * s:.0f}" for s in seconds]
    return (str(case), *times, f"{seconds[1] / seconds[0]:.2f}x", *found)


def our_step(case: Case, size: tuple[int, int], device: str) -> Step:
    """Return what is timed of ours."""
    torch.manual_seed(0)
    model = create_model("timm", TASKS[case.detector], CLASSES, name="resnet50")
    model.precision = "bf16" if case.bf16 else "fp32"
    prepare(model, [model.head], case, device)
    image, target = truth(size)
    sample = Sample(Image(image), BoxTarget(**target), Meta("", size, size))
    if not case.training:
        return torch.no_grad()(lambda: model.test_step([sample])[0].boxes)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)

    def losses() -> dict[str, Tensor]:
        return model(**model.data_preprocessor([sample], True), mode="loss")

    return partial(train, losses, optimizer)


def their_step(case: Case, size: tuple[int, int], device: str) -> Step:
    """Return what is timed of torchvision's."""
    torch.manual_seed(0)
    model = build_theirs(case.detector, size)
    heads = [model.head] if case.detector == "retinanet" else [model.rpn, model.roi_heads]
    prepare(model, heads, case, device)
    pixels, target = truth(size)
    image = (pixels.float() / 255).to(device)
    theirs = {name: target[name].to(device) for name in ("boxes", "labels", "masks")}
    autocast = torch.autocast(device, torch.bfloat16, enabled=case.bf16)
    if not case.training:

        def infer() -> Tensor:
            with torch.no_grad(), autocast:
                return model([image])[0]["boxes"]

        return infer

    def losses() -> dict[str, Tensor]:
        with autocast:
            return model([image], [theirs])

    return partial(train, losses, torch.optim.SGD(model.parameters(), lr=1e-9))


def build_theirs(detector: str, size: tuple[int, int]) -> Any:
    """Return torchvision's detector."""
    keep = {"min_size": min(size), "max_size": max(size)}
    if detector == "retinanet":
        sides = [[base * 2 ** (i / 3) for i in range(3)] for base in (32, 64, 128, 256, 512)]
        anchors = AnchorGenerator(tuple(map(tuple, sides)), ((0.5, 1.0, 2.0),) * 5)
        pyramid = Pyramid(1, LastLevelP6P7(2048, 256))
        return RetinaNet(pyramid, CLASSES, anchor_generator=anchors, detections_per_img=100, **keep)
    return MaskRCNN(Pyramid(0, LastLevelMaxPool()), CLASSES + 1, rpn_post_nms_top_n_train=1000, **keep)


def prepare(model: nn.Module, heads: Sequence[nn.Module], case: Case, device: str) -> None:
    """Fill the heads, stop the batch norms, move the model."""
    for module in (module for head in heads for module in head.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            module.weight.data *= 1.5
    model.to(device).train(case.training)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def truth(size: tuple[int, int]) -> tuple[Tensor, dict[str, Any]]:
    """Return an image and the fields of its target."""
    rng = torch.Generator().manual_seed(1)
    height, width = size
    corner = torch.rand(OBJECTS, 2, generator=rng) * torch.tensor([0.7 * width, 0.7 * height])
    side = (0.05 + 0.25 * torch.rand(OBJECTS, 2, generator=rng)) * torch.tensor([width, height])
    boxes = torch.cat([corner, corner + side], dim=1)
    masks = torch.zeros(OBJECTS, *size, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    target = {
        "boxes": boxes,
        "labels": torch.randint(1, CLASSES, (OBJECTS,), generator=rng),
        "crowd": torch.zeros(OBJECTS, dtype=torch.bool),
        "area": side.prod(dim=1),
        "masks": Mask(masks),
        "image_id": torch.tensor(0),
    }
    return torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=rng), target


def train(losses: Any, optimizer: torch.optim.Optimizer) -> None:
    """Make a step."""
    optimizer.zero_grad()
    torch.stack(list(losses().values())).sum().backward()
    optimizer.step()


if __name__ == "__main__":
    main()
