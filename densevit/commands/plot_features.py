"""Draw what a backbone makes of the samples of a split: t-SNE or principal components of features, coloured by class.

densevit plot-features CONFIG CHECKPOINT --split val --out features.png
densevit plot-features CONFIG CHECKPOINT --method pca --limit 5000

Features, points, labels and paths are written beside the picture, into features.npz.
"""

import argparse
from pathlib import Path

from densevit.cli import add_config_options, config_from


def add_options(parser: argparse.ArgumentParser) -> None:
    add_config_options(parser)
    parser.add_argument("checkpoint", help="of a run of ours, or official weights; the head is not used")
    parser.add_argument("--split", choices=("train", "val", "test"), default="val", help="default: %(default)s")
    parser.add_argument("--method", choices=("tsne", "pca"), default="tsne", help="default: %(default)s")
    parser.add_argument("--limit", type=int, default=2000, help="most samples to show, drawn at random (%(default)s)")
    parser.add_argument("--device", help="cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("features.png"), help="default: %(default)s")


def main(args: argparse.Namespace) -> None:
    cfg = config_from(args)

    from densevit.data.font import boxes_for_missing_letters
    from densevit.engine.feature_plot import draw, map_features
    from densevit.tables import Cell, table

    found = map_features(cfg, args.checkpoint, args.split, args.method, args.limit, args.device)
    name = {"tsne": "t-SNE", "pca": "principal components"}[args.method]
    title = f"{name} of {cfg.model.backbone.type}, {args.split}"
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with boxes_for_missing_letters():
        draw(found, title).savefig(args.out)
    found.save(args.out.with_suffix(".npz"))
    rows: list[tuple[str, Cell]] = [("samples", len(found.points)), ("features of each", found.features.shape[1])]
    rows += [("classes", len(set(found.labels.tolist()) - {-1}))]
    silhouettes = zip(("features", "points"), found.separation(), strict=True)
    rows += [(f"silhouette score of the {what}", f"{score:.4f}") for what, score in silhouettes if score == score]
    if found.explained is not None:
        rows += [
            (f"variance along the {axis} axis", f"{share:.4f}")
            for axis, share in zip(("first", "second"), found.explained, strict=True)
        ]
    print(table(title, ["", "value"], rows))
    print(f"wrote {args.out} and {args.out.with_suffix('.npz')}")
