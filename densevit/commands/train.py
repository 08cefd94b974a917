"""Train a config.

densevit train segformer_b0_ade20k
torchrun --nproc-per-node 8 -m densevit train segformer_b0_ade20k
"""

import argparse

from densevit.cli import add_config_options, add_run_options, config_from


def add_options(parser: argparse.ArgumentParser) -> None:
    add_config_options(parser)
    add_run_options(parser)
    parser.add_argument(
        "--resume", nargs="?", const="latest", metavar="CKPT", help="go on: from the newest intact checkpoint, or CKPT"
    )
    parser.add_argument(
        "--weights", metavar="PATH", help="start from these weights: ours, official, timm, Hugging Face"
    )
    parser.add_argument(
        "--auto-scale-lr",
        action=argparse.BooleanOptionalAction,
        help="learning rate in proportion to the batch size (default: where the config states the recipe's)",
    )
    parser.add_argument(
        "--parallel",
        choices=("ddp", "fsdp"),
        help="several processes: a copy of the model each, or a part (docs/sharding.md)",
    )
    parser.add_argument("--seed", type=int, help="of the order of the data, augmentation and new weights")
    parser.add_argument("--deterministic", action="store_true", help="refuse operations that are not reproducible")


def main(args: argparse.Namespace) -> None:

    cfg = config_from(args)
    cfg.resume = args.resume is not None
    if args.resume not in (None, "latest"):
        cfg.load_from = args.resume
    if args.weights is not None:
        cfg.model.weights = args.weights
    if args.auto_scale_lr is not None:
        cfg.auto_scale_lr = {**cfg.get("auto_scale_lr", {}), "enable": args.auto_scale_lr}
    if args.parallel is not None and args.parallel != (cfg.get("parallel") or {}).get("type", "ddp"):
        cfg.parallel = {"type": args.parallel}
    if args.seed is not None:
        cfg.randomness.seed = args.seed
    cfg.randomness.deterministic = args.deterministic

    from densevit.engine.runner import Runner  # slow to import: --help should not wait for it

    Runner.from_cfg(cfg).train()
