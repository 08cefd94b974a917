"""The model that is exported: pixels in, named tensors out."""

import copy
from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as Norm
from torch.nn.modules.conv import _ConvNd as Conv
from torch.nn.utils.fusion import fuse_conv_bn_eval

from densevit.model import DenseModel

BATCH_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)  # and none that derive from them: timm's have an activation


class Graph(nn.Module):
    """Normalisation, the parts of the model in fp32, and what the head makes of their outputs, see `Head.export`.

    It has a copy of the model, on the CPU and in evaluation. How a test runs it, by windows say, is no part of it.
    """

    def __init__(self, model: DenseModel) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().eval().requires_grad_(False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return what the head gives for ``(N, C, *space)``, values as the dataset prepares them, float32."""
        x = self.model.data_preprocessor.normalise(image)
        return self.model.head.export(self.model.parts(x), x.shape[2:])


@torch.no_grad()
def fold_batch_norms(model: nn.Module, x: Tensor) -> int:
    """Put each batch norm that a convolution leads to into its weights, and return how many these were.

    What leads where is seen in a run on ``x``. What runs more often than once is left as it is.
    """
    # Tensors are kept, so that no address is used twice, with a count of what was done to them in place.
    outputs: dict[int, tuple[Conv, Tensor, int]] = {}
    pairs: list[tuple[Conv, Norm]] = []
    runs: Counter[nn.Module] = Counter()

    def made(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        runs[module] += 1
        if isinstance(module, Conv):
            outputs[id(output)] = module, output, output._version
        elif isinstance(module, Norm) and id(inputs[0]) in outputs:
            conv, tensor, version = outputs[id(inputs[0])]
            if tensor._version == version:
                pairs.append((conv, module))

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Conv3d) or type(m) in BATCH_NORMS]
    hooks = [layer.register_forward_hook(made) for layer in layers]
    model(x)
    for hook in hooks:
        hook.remove()
    once = [pair for pair in pairs if runs[pair[0]] == runs[pair[1]] == 1]
    for conv, norm in once:
        fused = fuse_conv_bn_eval(conv, norm)
        conv.weight, conv.bias = fused.weight, fused.bias
        _replace(model, norm, nn.Identity())
    return len(once)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for module in model.modules():
        for name, child in module.named_children():
            if child is old:
                setattr(module, name, new)
