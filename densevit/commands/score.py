"""Score predictions that densevit test --out wrote, without the model: densevit score CONFIG DIR."""

import argparse
from pathlib import Path

from rich.progress import track

from densevit.cli import add_config_options, config_from


def add_options(parser: argparse.ArgumentParser) -> None:
    add_config_options(parser)
    parser.add_argument("predictions", help="folder of the predictions, laid out as the inputs are")


def main(args: argparse.Namespace) -> None:
    cfg = config_from(args)

    from densevit.data.dataset import DenseDataset
    from densevit.engine.writer import output_names
    from densevit.registry import DATASETS, METRICS
    from densevit.structures import Meta, Sample
    from densevit.tables import table

    dataset: DenseDataset = DATASETS.build(cfg.test_dataloader.dataset)
    metric = METRICS.build(cfg.test_evaluator)
    metric.dataset_meta = dataset.metainfo
    names = output_names([dataset.path(i) for i in range(len(dataset))])
    for index, name in enumerate(track(names, "scoring")):
        prediction = dataset.prediction.load(Path(args.predictions, name))
        image, target, path = dataset.read(index)
        size = tuple(image.shape[1:])
        metric.process([Sample(image, target, Meta(path, size, size))], [prediction])
    means = metric.evaluate(len(dataset))
    print(table("means", ["metric", "value"], [[name, f"{value:.4f}"] for name, value in means.items()]))
