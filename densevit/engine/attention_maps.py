"""Attention maps of a model, and how similar they are: whether deep blocks still attend to something new.

Paper: https://arxiv.org/abs/2103.11886, section 3
"""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.module_tracker import ModuleTracker

from densevit.errors import ConfigError
from densevit.layers import AttentionTap, CrossCovarianceAttention


class AttentionMaps(NamedTuple):
    """What one call of an attention layer weighed its values with.

    Attributes:
        layer: Name of the module that attends.
        weights: ``(N, heads, L, S)`` for ``L`` queries and ``S`` keys.
    """

    layer: str
    weights: Tensor


class _Recorder(TorchFunctionMode):
    """Record the weights of each call of PyTorch's attention, which itself is left as it is."""

    def __init__(self, tracker: ModuleTracker, root: str, layers: Collection[str] | None) -> None:
        super().__init__()
        self.tracker, self.root, self.layers = tracker, root, layers
        self.maps: list[AttentionMaps] = []

    def wants(self) -> bool:
        """Whether the layer that computes just now is to be recorded."""
        return self.layers is None or self._layer() in self.layers

    def record(self, weights: Tensor) -> None:
        if self.wants():
            self.maps.append(AttentionMaps(self._layer(), weights.detach()))

    def _layer(self) -> str:
        return max(self.tracker.parents - {"Global"}, key=len).removeprefix(self.root).lstrip(".")

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and self.wants():
            self.record(_weights(*args, **kwargs))
        return func(*args, **kwargs)


def _weights(q: Tensor, k: Tensor, v: Tensor, attn_mask: Any = None, dropout_p: float = 0.0, **options: Any) -> Tensor:
    """Return the weights of a call of PyTorch's attention: what it gives for values that are the unit matrix."""
    unit = torch.eye(k.shape[-2], dtype=v.dtype, device=v.device).expand(*k.shape[:-1], -1)
    return F.scaled_dot_product_attention(q, k, unit, attn_mask, **options)


@contextmanager
def record_attention(model: nn.Module, layers: Collection[str] | None = None) -> Iterator[list[AttentionMaps]]:
    """Fill the list with the maps of attention layers of ``model``, by default all, in the order of the calls.

    Attention is found where it is computed by `torch.nn.functional.scaled_dot_product_attention`, or its weights pass
    an `AttentionTap`. What the model returns is what it returns otherwise, but no gradients are computed.
    Maps are large: ``layers`` are the names of the modules whose maps are wanted.

    Raises:
        ConfigError: The model attends between channels.
    """
    root = type(model).__name__
    if any(isinstance(module, CrossCovarianceAttention) for module in model.modules()):
        raise ConfigError(f"{root} attends between channels (cross-covariance): it has no maps of tokens to look at")
    # Without gradients all layers take the path that is recorded.
    with torch.no_grad(), ModuleTracker() as tracker, _Recorder(tracker, root, layers) as recorder:
        taps = [module for module in model.modules() if isinstance(module, AttentionTap)]
        hooks = [tap.register_forward_hook(lambda tap, inputs, output: recorder.record(output)) for tap in taps]
        try:
            yield recorder.maps
        finally:
            for hook in hooks:
                hook.remove()


def similarity_of_layers(a: Tensor, b: Tensor) -> float:
    """Return the cosine similarity of two layers' maps ``(N, heads, L, S)``; NaN if their shapes differ.

    ``mean over n, h, j of  <a[n, h, :, j], b[n, h, :, j]> / (|a[n, h, :, j]| |b[n, h, :, j]|)``: what a key contributes
    to all queries is compared with what it does in the same head of the other layer. 1 says that both attend alike.
    """
    return F.cosine_similarity(a.float(), b.float(), dim=-2).mean().item() if a.shape == b.shape else float("nan")


def similarity_of_heads(a: Tensor) -> float:
    """Return the cosine similarity of the heads of a layer's maps ``(N, heads, L, S)``; NaN for a single head.

    ``mean over n, j and pairs g < h of  <a[n, g, :, j], a[n, h, :, j]> / (|a[n, g, :, j]| |a[n, h, :, j]|)``
    """
    heads = a.shape[1]
    if heads < 2:
        return float("nan")
    unit = F.normalize(a.float(), dim=-2)
    # The square of a sum is that of its terms and twice that of their pairs.
    pairs = unit.sum(dim=1).square().sum(dim=-2) - unit.square().sum(dim=(1, 2))
    return (pairs.mean() / (heads * (heads - 1))).item()


@dataclass(frozen=True, slots=True)
class LayerSimilarity:
    """How much alike the maps of a layer are, as a mean over images; NaN where there is nothing to compare.

    Attributes:
        layer: Name of the module.
        heads: Number of attention heads.
        queries: Number of queries, of the last image.
        keys: Number of keys, of the last image.
        next_layer: Similarity to the layer after it.
        between_heads: Similarity of its heads.
    """

    layer: str
    heads: int
    queries: int
    keys: int
    next_layer: float
    between_heads: float


def analyze_attention(model: nn.Module, inputs: Iterable[Tensor]) -> list[LayerSimilarity]:
    """Return how similar the maps of a model in eval mode are, layer by layer, for normalised ``(N, C, *space)``.

    Raises:
        ConfigError: The model has no attention, or attends between channels.
    """
    found = [_compare(model, x) for x in inputs]
    return [_mean(layer) for layer in zip(*found, strict=True)]


def _compare(model: nn.Module, x: Tensor) -> list[LayerSimilarity]:
    with record_attention(model) as maps:
        model(x)
    if not maps:
        raise ConfigError(f"{type(model).__name__} has no attention: there are no maps to look at")
    next_layer = [*(similarity_of_layers(a.weights, b.weights) for a, b in pairwise(maps)), float("nan")]
    return [
        LayerSimilarity(layer, *_sizes(weights), similarity, similarity_of_heads(weights))
        for (layer, weights), similarity in zip(maps, next_layer, strict=True)
    ]


def _sizes(weights: Tensor) -> tuple[int, int, int]:
    _, heads, queries, keys = weights.shape
    return heads, queries, keys


def _mean(found: Sequence[LayerSimilarity]) -> LayerSimilarity:
    next_layer, between_heads = fmean(x.next_layer for x in found), fmean(x.between_heads for x in found)
    return replace(found[-1], next_layer=next_layer, between_heads=between_heads)


def mean_similarities(layers: Sequence[LayerSimilarity]) -> tuple[float, float]:
    """Return the means over the layers of ``next_layer`` and ``between_heads``; NaN if no layer has any."""
    next_layer, between_heads = (
        torch.tensor([getattr(layer, name) for layer in layers]).nanmean().item()
        for name in ("next_layer", "between_heads")
    )
    return next_layer, between_heads


def write_similarities(title: str, layers: Sequence[LayerSimilarity], out: Path) -> None:
    """Write ``attention.json``, in which NaN is null, and the curves over the layers, ``attention.png``."""
    out.mkdir(parents=True, exist_ok=True)
    rows = [{k: None if v != v else v for k, v in asdict(layer).items()} for layer in layers]
    (out / "attention.json").write_text(json.dumps({"title": title, "layers": rows}, indent=1) + "\n")

    figure = Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    numbers = range(1, len(layers) + 1)
    axes.plot(numbers, [layer.next_layer for layer in layers], marker="o", label="this layer and the next")
    axes.plot(numbers, [layer.between_heads for layer in layers], marker="s", label="heads of the layer")
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("attention layer, from the input")
    axes.set_ylabel("cosine similarity of attention maps")
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(out / "attention.png")
