"""The card of a published model: what it is, how it came about, how well it does, how to use it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from densevit import __version__
from densevit.data.folders import shortened
from densevit.engine.complexity import complexity, usual_size
from densevit.engine.curves import metric_names, read_scalars
from densevit.engine.environment import commit_of
from densevit.model import DenseModel

EXAMPLES = {"video": "clip.mp4", "medical": "scan.nii.gz"}  # of what a model predicts; other tasks' are photos
TO_FILL_IN = """\
- Licence: of these weights. Weights started from others inherit what theirs asks for; `densevit list-models` names the
  licence of official ones.
- The data: where they are from, their licence, what is not in them.
- What the model is for, and what it must not be used for."""


@dataclass(frozen=True)
class Card:
    """What is known of a published model.

    Attributes:
        name: Of the model.
        folder: Name of the folder that it is published in.
        weights: Name of the file in it.
        sha256: Of that file.
        size: Of that file in bytes.
        cfg: As it is published.
        model: With its weights.
        meta: What the header of the file holds.
        started_from: Name of the file of weights that training started from, if any.
        averaged: Whether the weights are an average over the steps.
        scores: Of this checkpoint on the validation split, if the run logged any.
        chosen: Whether it is the best of several on that split.
    """

    name: str
    folder: str
    weights: str
    sha256: str
    size: int
    cfg: Config
    model: DenseModel
    meta: Mapping[str, Any]
    started_from: str | None
    averaged: bool
    scores: Mapping[str, float]
    chosen: bool

    def __str__(self) -> str:
        rows = [f"| {name} | {value} |" for name, value in self._facts()]
        parts = [
            f"# {self.name}",
            "\n".join(["| | |", "| --- | --- |", *rows]),
            "## Scores",
            *self._scores(),
            "## Use",
            *self._use(),
            "## To fill in by who publishes it",
            TO_FILL_IN,
        ]
        return "\n\n".join(parts) + "\n"

    def _facts(self) -> Iterator[tuple[str, str]]:
        model, cfg = self.cfg.model, self.cfg
        net = self.model.backbone
        size = usual_size(net)
        total = complexity(self.model, size, net.in_channels)[0]
        classes = self.meta["dataset"]["classes"]
        yield "task", self.meta["task"]
        for part in ("backbone", "neck", "head"):
            if model.get(part):
                yield part, model[part]["type"]
        yield "parameters", f"{total.params / 1e6:.2f} M"
        shape = " x ".join(map(str, (net.in_channels, *size)))
        yield "multiply-accumulates", f"{total.macs / 1e9:.2f} G for an input of {shape}"
        yield "classes", f"{len(classes)}: {shortened(classes)}"
        if loader := cfg.get("train_dataloader"):
            data = loader["dataset"]
            yield "trained on", ", ".join(filter(None, (data["type"], data.get("data_root"))))
        yield "training", ", ".join(self._training())
        yield "made with", self._versions()
        yield "file", f"`{self.weights}`, {self.size / 1e6:.1f} MB, SHA-256 `{self.sha256}`"
        yield "licence", "to be filled in"

    def _training(self) -> Iterator[str]:
        yield self.meta["config_name"] or "config unknown"
        if "iter" in self.meta:
            yield f"{self.meta['iter']} steps"
        if self.started_from:
            yield f"started from {self.started_from}"
        if self.averaged:
            yield "weights averaged over the steps"

    def _versions(self) -> str:
        trained = [f"{name} {self.meta[name]}" for name in ("densevit", "torch") if name in self.meta]
        commit = commit_of(Path(__file__).parent)
        published = f"published by densevit {__version__}{f', commit {commit}' if commit else ''}"
        return "; ".join([*([", ".join(trained)] if trained else []), f"{published}, torch {torch.__version__}"])

    def _scores(self) -> Iterator[str]:
        if not self.scores:
            yield "None is known: `densevit test` measures them."
            return
        yield "\n".join(
            ["| metric | value |", "| --- | --- |", *(f"| {k} | {v:.4f} |" for k, v in self.scores.items())]
        )
        yield f"Of this checkpoint on the validation split, as its run logged them at step {self.meta['iter']}." + (
            " It was chosen as the best on that split." if self.chosen else ""
        )

    def _use(self) -> Iterator[str]:
        config, weights = f"{self.folder}/config.py", f"{self.folder}/{self.weights}"
        example = EXAMPLES.get(self.meta["task"], "photo.jpg")
        yield "With densevit installed, beside this folder:"
        yield (
            f"```bash\ndensevit predict {config} {weights} {example} --out predictions\n"
            f"densevit test {config} {weights} --data-root DATA\n```"
        )
        yield (
            f'```python\nimport densevit\n\npredictor = densevit.load("{weights}")\n'
            f'print(predictor("{example}").to_dict())\n```'
        )
        yield (
            "`config.py` is Python, as every config is: read it before you run it. The weights hold tensors and JSON "
            "and run nothing; `checkpoints.json` beside them has their SHA-256, which the tools check."
        )
        if imports := (self.cfg.get("custom_imports") or {}).get("imports"):
            modules: Sequence[str] = [imports] if isinstance(imports, str) else imports
            yield f"Modules of its authors that it needs, and that are not in this folder: {', '.join(modules)}."


def logged_scores(run: Path, step: int) -> dict[str, float]:
    """Return what the validation at a step of the run in a folder gave; nothing where there was none."""
    scalars = read_scalars(run)
    points = {name: dict(scalars[f"val/{name}"]) for name in metric_names(scalars)}
    return {name: values[step] for name, values in points.items() if step in values}
