"""Linear classifiers: what the heads of images and of clips share."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densevit.errors import ConfigError
from densevit.features import Features, Head, Losses, Specs
from densevit.structures import Sample


class LinearClassifier(Head):
    """Classify the backbone's token or, where it gives none, the mean over space, and time, of its last map.

    Args:
        specs: Maps of the backbone, fine to coarse.
        num_classes: Number of classes.
        token_channels: Channels of the token; 0 if there is none.
        dropout: Rate of dropout before the classifier.
        label_smoothing: Share of the probability that training spreads over all classes
            (https://arxiv.org/abs/1512.00567).
        init_scale: Factor on the classifier's initial weights, for fine-tuning.
        loss: "softmax" for one class per sample, or "sigmoid" to tell each class from the rest by itself, whose scores
            do not add up to 1 (https://arxiv.org/abs/2006.07159).
        init_bias: Initial bias of the classifier; for "sigmoid" the logit of how frequent a class is.

    Raises:
        ConfigError: There is neither a token nor a map, or a value is out of its range.
    """

    def __init__(
        self,
        specs: Specs,
        num_classes: int,
        token_channels: int = 0,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        init_scale: float = 1.0,
        loss: str = "softmax",
        init_bias: float = 0.0,
    ) -> None:
        super().__init__()
        if not token_channels and not specs:
            raise ConfigError(f"{type(self).__name__} has nothing to read: give the backbone token=True or out_indices")
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"label_smoothing must be in [0, 1), not {label_smoothing}")
        if loss not in ("softmax", "sigmoid"):
            raise ConfigError(f'loss of {type(self).__name__} is "softmax" or "sigmoid", not {loss!r}')
        self.num_classes = num_classes
        self.sigmoid = loss == "sigmoid"
        self.reads_token = token_channels > 0
        self.space = () if token_channels else tuple(range(2, 2 + specs[-1].ndim))
        self.label_smoothing = label_smoothing
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(token_channels or specs[-1].channels, num_classes)
        nn.init.trunc_normal_(self.fc.weight, std=0.02).detach().mul_(init_scale)
        nn.init.constant_(self.fc.bias, init_bias)

    def forward(self, features: Features) -> Tensor:
        """Return class logits ``(N, K)``."""
        x = features.token if self.reads_token else features.maps[-1].mean(dim=self.space)
        assert x is not None, "the backbone said that it gives a token"
        return self.fc(self.dropout(x))

    def loss(self, outputs: Tensor, samples: Sequence[Sample]) -> Losses:
        """Return cross entropy and the share of the samples whose most probable class is right.

        With "sigmoid" it is the sum of the binary ones over classes, averaged over samples. Labels are smoothed in
        training only: the loss of a validation is comparable between recipes.
        """
        target = torch.stack([sample.target.label for sample in samples]).to(outputs.device)
        logits = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        smoothing = self.label_smoothing if self.training else 0.0
        truth = target if target.ndim == 1 else target.argmax(dim=1)
        if self.sigmoid and target.ndim == 1:
            target = F.one_hot(target, self.num_classes)
        if target.ndim == 2:
            target = target.to(logits.dtype)
        if self.sigmoid:
            target = (1 - smoothing) * target + smoothing / self.num_classes
            loss = F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / len(logits)
        else:
            loss = F.cross_entropy(logits, target, label_smoothing=smoothing)
        return {"loss_cls": loss, "acc": (logits.argmax(dim=1) == truth).float().mean()}

    def scores(self, outputs: Tensor) -> Tensor:
        """Return the probabilities of the classes for logits ``(..., K)``."""
        logits = outputs.float()
        return logits.sigmoid() if self.sigmoid else logits.softmax(dim=-1)

    def export(self, outputs: Tensor, space: Sequence[int]) -> dict[str, Tensor]:
        """Return the probabilities of the classes, ``(N, K)``."""
        return {"scores": self.scores(outputs)}

    @staticmethod
    def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename ``weight``, with what others put before it, to ``fc.weight``. A ``kernel`` (JAX) is one transposed.

        The official MViT has ``projection.weight``, torchvision ``head.weight`` or ``1.weight``, mmaction2
        ``fc_cls.weight``.
        """
        state = {("weight" if key == "kernel" else key): v.mT if key == "kernel" else v for key, v in state.items()}
        return {
            re.sub(r"^(?:head\.|projection\.|1\.|fc_cls\.)?(weight|bias)$", r"fc.\1", key): v
            for key, v in state.items()
        }
