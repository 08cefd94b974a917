"""Score masks that tools/test.py --out wrote, without the model: python tools/score.py CONFIG DIR."""

import argparse
from pathlib import Path

from rich.progress import track
from torch import Tensor

from densevit.cli import add_config_options, config_from, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_options(parser)
    parser.add_argument("masks", help="folder of PNG masks, laid out as the images are")
    args = parser.parse_args()
    cfg = config_from(args)

    from densevit.data.readers import read_mask
    from densevit.engine.writer import common_folder
    from densevit.registry import DATASETS, METRICS
    from densevit.tables import table

    dataset, metric = DATASETS.build(cfg.test_dataloader.dataset), METRICS.build(cfg.test_evaluator)
    metric.dataset_meta = dataset.metainfo
    folder = common_folder(dataset)
    for index in track(range(len(dataset)), "scoring"):
        path = Path(dataset.path(index))
        _, target, _ = dataset.read(index)
        mask = read_mask(Path(args.masks) / path.relative_to(folder).with_suffix(".png"))
        metric.add(target.mask.as_subclass(Tensor), mask.as_subclass(Tensor))
    means = metric.evaluate(len(dataset))
    print(table("means", ["metric", "value"], [[name, f"{value:.4f}"] for name, value in means.items()]))


if __name__ == "__main__":
    run(main)
