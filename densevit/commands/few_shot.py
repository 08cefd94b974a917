"""Evaluate a backbone by linear probes that learn from few images: top-1 for N images of each class.

densevit few-shot vit_s16_imagenet CHECKPOINT --shots 1 5 10 25
densevit few-shot vit_s16_imagenet WEIGHTS --model vit_b16
"""

import argparse
import json
from pathlib import Path

from densevit.cli import add_config_options, config_from


def add_options(parser: argparse.ArgumentParser) -> None:
    add_config_options(parser)
    parser.add_argument("checkpoint", help="of a run of ours, or official weights; the head is not used")
    parser.add_argument("--model", metavar="NAME", help="another backbone than the config's, with its own defaults")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 10, 25], help="images of each class")
    parser.add_argument("--seeds", type=int, default=3, help="number of random choices of the images")
    parser.add_argument("--device", help="cpu or cuda")
    parser.add_argument("--out", default="few_shot.json", help="file of the results")


def main(args: argparse.Namespace) -> None:
    cfg = config_from(args)

    from densevit.registry import BACKBONES, accepted_keys
    from densevit.tables import table
    from densevit.tasks.classification.few_shot import evaluate_few_shot

    if args.model is not None:
        has_token = "token" in (accepted_keys(BACKBONES.get(args.model)) or ())
        cfg.model.backbone = {"type": args.model, **({"token": True} if has_token else {})}
    scores = evaluate_few_shot(cfg, args.checkpoint, args.shots, args.seeds, args.device)
    rows = [[result["shots"], f"{result['top1']:.4f}", f"{result['std']:.4f}"] for result in scores["results"]]
    title = f"linear probe of {cfg.model.backbone.type}, {args.seeds} choices of images"
    print(table(title, ["images of each class", "top1", "std"], rows))
    content = {"config": args.config, "checkpoint": args.checkpoint, "backbone": cfg.model.backbone.type, **scores}
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written to {out}")
