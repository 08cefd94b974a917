"""Freezing of parts of a model."""

from functools import partial

from torch import nn


def freeze(module: nn.Module) -> None:
    """Stop the gradients of ``module`` and keep it in eval mode, whichever parent ``train()`` is called on."""
    module.requires_grad_(False).eval()
    # A partial, unlike a closure or a bound method, follows the module through deepcopy and pickle.
    module.__dict__["train"] = partial(_stay, module)


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    return module
