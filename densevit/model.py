"""The one model class: every task trains, validates and predicts through it."""

import inspect
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from densevit.contract import build_backbone, checked_features, is_traced
from densevit.errors import ConfigError
from densevit.features import Backbone, Features, FeatureSpec, Head, Losses, Neck, Specs
from densevit.registry import HEADS, MODELS, NECKS, accepted_keys, suggestion
from densevit.structures import Sample

PRECISIONS = ("auto", "bf16", "fp32")


@MODELS.register_module()
class DenseModel(BaseModel):
    """Preprocessor -> backbone -> neck -> head.

    Args:
        backbone: Config of the backbone.
        head: Config of the head; it receives the specs of what it reads.
        neck: Config of the neck, if any; it receives the specs of the backbone.
        data_preprocessor: Config of the preprocessor; it receives the backbone's divisor.
        inference: Config of a callable ``(network, x) -> outputs`` which replaces ``network(x)`` in evaluation,
            such as `SlideInference`.
        precision: "bf16" runs the network under autocast, in training and evaluation; losses stay in fp32.
            "auto" does so where the device has it in hardware. Else the network runs as the caller says, in fp32 or
            under an autocast of its own.
        activation_checkpointing: Keep no activations within blocks of the backbone; compute them again in the
            backward pass. Less memory for about a third more time.
        compile: True, or options of `torch.compile`, compiles the backbone in training and evaluation; weights keep
            their names. The first size of inputs is compiled for itself, and when another one comes all others are
            compiled at once; ``dict(dynamic=False)`` compiles each size for itself.

    Attributes:
        backbone_seen: Whether a batch has shown that the backbone returns what it says.

    Raises:
        ConfigError: Parts that do not exist, or do not fit together.
    """

    backbone_seen: bool = False

    def __init__(
        self,
        backbone: dict[str, Any],
        head: dict[str, Any],
        neck: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
        inference: dict[str, Any] | None = None,
        precision: str = "auto",
        activation_checkpointing: bool = False,
        compile: bool | dict[str, Any] = False,
    ) -> None:
        if precision not in PRECISIONS:
            raise ConfigError(f"model.precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
        net = build_backbone(backbone)
        super().__init__(
            MODELS.build({"type": "ImagePreprocessor", **(data_preprocessor or {})}, {"divisor": net.divisor})
        )
        self.backbone = net
        net.checkpointing = activation_checkpointing
        if compile is not False:
            options = {} if compile is True else compile
            _check_compiler(net, options)
            net.compile(**options)
        specs: Specs = net.specs
        self.neck: Neck | None = None
        if neck is not None:
            self.neck = NECKS.build(neck, {"specs": specs})
            specs = self.neck.specs
        self.head: Head = HEADS.build(head, _inputs_of_head(head, net, specs))
        self.inference: Callable[..., Any] | None = MODELS.build(inference) if inference else None
        self.precision = precision

    def computes_in_bf16(self, device: str) -> bool:
        """Say whether the network runs under autocast on a type of device."""
        return self.precision == "bf16" or (self.precision == "auto" and has_fast_bf16(device))

    def network(self, x: Tensor) -> Any:
        """Return the raw outputs of the head for a normalised batch ``(N, C, H, W)``, in the model's precision."""
        bf16 = self.computes_in_bf16(x.device.type)
        with torch.autocast(x.device.type, torch.bfloat16) if bf16 else nullcontext():  # which may be in one already
            return self.parts(x)

    def parts(self, x: Tensor) -> Any:
        """Return the raw outputs of the head in the precision that is set at the time; exported graphs hold this."""
        features = self._features(x)
        if self.neck is not None:
            features = features._replace(maps=self.neck(features.maps, x.shape[2:]))
        if self.head.reads_input:
            features = features._replace(maps=(x, *features.maps))
        return self.head(features)

    def _features(self, x: Tensor) -> Features:
        """Return the features of the backbone; those of the first batch are compared with what it says of itself."""
        if is_traced() or self.backbone_seen:
            return self.backbone(x)
        features = checked_features(self.backbone, x)
        self.backbone_seen = True
        return features

    def forward(self, inputs: Tensor, samples: Sequence[Sample] = (), mode: str = "tensor") -> Any:
        """Return raw outputs for ``mode="tensor"`` and losses for ``mode="loss"``, mmengine's word for training."""
        outputs = self.network(inputs)
        return self.head.loss(outputs, samples) if mode == "loss" else outputs

    def test_step(self, data: Sequence[Sample]) -> list[Any]:
        """Return one prediction per sample, at its original size."""
        return self._evaluate(data, with_loss=False)[0]

    def val_step(self, data: Sequence[Sample]) -> tuple[list[Any], Losses]:
        """Return one prediction per sample, and the losses, averaged over the samples."""
        return self._evaluate(data, with_loss=True)

    def _evaluate(self, data: Sequence[Sample], with_loss: bool) -> tuple[list[Any], Losses]:
        """Run inputs of equal size together: nothing is padded, so no result depends on its neighbours."""
        batch = self.data_preprocessor(data, False)
        inputs, samples = batch["inputs"], batch["samples"]
        groups: dict[torch.Size, list[int]] = {}
        for index, x in enumerate(inputs):
            groups.setdefault(x.shape, []).append(index)
        predictions: dict[int, Any] = {}
        losses: Losses = {}
        for members in groups.values():
            x, group = torch.stack([inputs[i] for i in members]), [samples[i] for i in members]
            outputs = self.inference(self.network, x) if self.inference else self.network(x)
            predictions.update(zip(members, self.head.predict(outputs, [s.meta for s in group]), strict=True))
            if with_loss:
                if isinstance(outputs, list):  # views, of which there is no loss
                    outputs = self.network(x)
                terms = {k: v for k, v in self.head.loss(outputs, group).items() if "loss" in k}
                terms["loss"] = torch.stack(list(terms.values())).sum()
                for name, value in terms.items():
                    losses[name] = losses.get(name, 0) + value * (len(members) / len(samples))
        return [predictions[i] for i in range(len(samples))], losses


def _check_compiler(backbone: Backbone, options: dict[str, Any]) -> None:
    """Raise `ConfigError` where compiling would fail in the first step: for CPUs, it writes C++."""
    accepted = inspect.signature(torch.compile).parameters.keys() - {"model", "disable"}
    for key in options:
        if key not in accepted:
            raise ConfigError(f"model.compile takes no {key!r}.{suggestion(key, accepted)}")
    command = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if options.get("backend", "inductor") == "inductor" and not torch.cuda.is_available() and not shutil.which(command):
        raise ConfigError(
            f"model.compile needs a C++ compiler on the CPU, and there is no {command}: install one, name yours in the "
            "environment variable CXX, or leave out compile"
        )
    if backbone.checkpointing and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in backbone.modules()):
        raise ConfigError(
            f"model.activation_checkpointing cannot be compiled with the batch norms of {type(backbone).__name__}, "
            "which would count each batch twice: leave out compile or activation_checkpointing"
        )


def _inputs_of_head(head: dict[str, Any], backbone: Backbone, specs: Specs) -> dict[str, Any]:
    """Return what a head is constructed with besides its config."""
    HEADS.check(head)
    if getattr(HEADS.get(head["type"]), "reads_input", False):
        specs = (FeatureSpec(backbone.in_channels, (1,) * len(backbone.divisor)), *specs)
    if "token_channels" in (accepted_keys(HEADS.get(head["type"])) or ()):
        return {"specs": specs, "token_channels": backbone.token_channels}
    if backbone.token_channels:
        raise ConfigError(
            f"{head['type']} reads maps, not the token of {type(backbone).__name__}: "
            "leave out token=True in model.backbone"
        )
    return {"specs": specs}


@cache
def has_fast_bf16(device: str) -> bool:
    """Say whether a device computes in bf16 faster than in fp32: Ampere and later, CPUs with AMX.

    On a CPU with AVX512-BF16 alone, training steps of SegFormer-B0 take 1.15 times as long in bf16.
    """
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    flags = Path("/proc/cpuinfo")
    return device == "cpu" and flags.exists() and bool(re.search(r"\bamx_bf16\b", flags.read_text()))
