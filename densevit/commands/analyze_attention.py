"""Print how similar the attention maps of neighbouring layers, and of the heads of a layer, are; draw both.

densevit analyze-attention CONFIG CHECKPOINT IMAGE_OR_FOLDER_OR_GLOB ... [--out DIR]
densevit analyze-attention --model deepvit_16b [--weights FILE] IMAGE_OR_FOLDER_OR_GLOB ...

Deep blocks whose maps are those of the block before attend to nothing new (https://arxiv.org/abs/2103.11886).
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from densevit.errors import ConfigError
from densevit.tables import rich_table

HEADER = ["attention layer", "heads", "queries", "keys", "similarity to the next", "between heads"]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", help="[CONFIG CHECKPOINT] and images, folders, or quoted globs")
    parser.add_argument("--model", help="name of a backbone, instead of CONFIG CHECKPOINT; images as ImageNet's")
    parser.add_argument("--weights", help="file for --model; random weights without it")
    parser.add_argument("--out", type=Path, default=Path("attention"), help="folder for attention.png and .json")
    parser.add_argument("--device", help="cpu or cuda")


def main(args: argparse.Namespace) -> None:
    if args.weights and not args.model:
        raise ConfigError("--weights goes with --model; a config is followed by its checkpoint")
    if not args.model and len(args.inputs) < 3:
        raise ConfigError("give CONFIG CHECKPOINT and images, or --model NAME and images")

    from densevit.engine.attention_maps import analyze_attention, mean_similarities, write_similarities
    from densevit.inputs import find_files
    from densevit.loading import load

    paths = find_files(args.inputs if args.model else args.inputs[2:])
    if args.model:
        title = f"{args.model}, {args.weights or 'random weights'}"
        predictor = from_name(args.model, args.weights, args.device)
    else:
        config, checkpoint = args.inputs[:2]
        title = f"{Path(config).stem}, {checkpoint}"
        predictor = load(checkpoint, config, args.device)
    title += f", images: {len(paths)}"
    layers = analyze_attention(predictor.model.backbone, inputs(predictor.model, predictor.transforms, paths))
    rows: list[Sequence[Any]] = [(x.layer, x.heads, x.queries, x.keys, x.next_layer, x.between_heads) for x in layers]
    rows.append(("mean", "-", "-", "-", *mean_similarities(layers)))
    Console().print(rich_table(title, HEADER, rows))
    write_similarities(title, layers, args.out)
    print(f"attention.png and attention.json in {args.out}")


def from_name(name: str, weights: str | None, device: str | None) -> Any:
    """Return a predictor of a classifier, which prepares images as for ImageNet."""
    from densevit.api import create_model
    from densevit.data.transforms import build_transforms
    from densevit.predictor import Predictor
    from densevit.weights import load_weights

    model = create_model(name)
    if weights:
        load_weights(model, weights)
    size = model.backbone.img_size
    resize = {"type": "Resize", "size": round(size * 256 / 224), "interpolation": "bicubic"}
    return Predictor(model, build_transforms([resize, {"type": "CenterCrop", "size": size}]), [], [], device)


def inputs(model: Any, transforms: Callable[[Any], Any], paths: Sequence[Path]) -> Iterator[Any]:
    """Yield each image as the backbone gets it in evaluation, ``(1, C, H, W)``."""
    from densevit.data.readers import read_image
    from densevit.structures import Meta, Sample

    for path in track(paths, "analysing"):
        image = read_image(path)
        view = transforms(image)
        sample = Sample(view, None, Meta(str(path), tuple(image.shape[1:]), tuple(view.shape[1:])))
        yield model.data_preprocessor([sample])["inputs"][0][None]
