"""Test a checkpoint: densevit test CONFIG CHECKPOINT.

Or score what any tool has found, without a model: densevit test CONFIG --from-json FILE.
"""

import argparse
from pathlib import Path

from mmengine.config import Config

from densevit.cli import add_config_options, add_run_options, config_from
from densevit.errors import ConfigError
from densevit.inference import use_inference


def add_options(parser: argparse.ArgumentParser) -> None:
    add_config_options(parser)
    parser.add_argument("checkpoint", nargs="?", help="of a run of ours, or its folder, or official weights")
    add_run_options(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="write predictions (masks as PNG or NIfTI, scores as JSON) for densevit score"
    )
    parser.add_argument("--show-dir", metavar="DIR", help="write pictures of the predictions")
    parser.add_argument("--from-json", type=Path, metavar="FILE", help="COCO results to score in place of a checkpoint")
    parser.add_argument("--tta", action="store_true", help="average over scales and the mirror image")
    parser.add_argument("--slide", action="store_true", help="sliding windows in place of the whole image")


def main(args: argparse.Namespace) -> None:
    if (args.checkpoint is None) == (args.from_json is None):
        raise ConfigError("give either a CHECKPOINT or --from-json FILE")
    if args.from_json and (args.out or args.show_dir or args.tta or args.slide):
        raise ConfigError("--out, --show-dir, --tta and --slide need a model, and --from-json goes without")

    cfg = config_from(args)
    if args.from_json is not None:
        score(cfg, args.from_json)
        return
    from densevit.loading import checkpoint_of  # slow to import: --help should not wait for it

    cfg.load_from, cfg.resume = str(checkpoint_of(args.checkpoint)), False
    use_inference(cfg, args.slide, args.tta)
    if args.out or args.show_dir:
        writer = {"type": "PredictionWriterHook", "out": args.out, "show_dir": args.show_dir}
        cfg.custom_hooks = [*cfg.get("custom_hooks", []), writer]

    from densevit.engine.runner import Runner

    Runner.from_cfg(cfg).test()


def score(cfg: Config, file: Path) -> None:
    """Print how well the objects of a file of COCO results are found.

    Raises:
        ConfigError: The metric of the config reads no such files.
        DataError: The file is none, or contradicts the dataset.
    """
    from densevit.registry import DATASETS, METRICS
    from densevit.tables import table

    metric = METRICS.build(cfg.test_evaluator)
    if not hasattr(metric, "read"):
        raise ConfigError(f"--from-json is for detection: {cfg.test_evaluator.type} reads no COCO results")
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    metric.dataset_meta = dataset.metainfo
    metric.read(file, dataset)
    means = metric.evaluate(len(dataset))
    print(table("means", ["metric", "value"], [[name, f"{value:.4f}"] for name, value in means.items()]))
