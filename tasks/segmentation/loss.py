"""Cross entropy between logits on a coarse grid and labels of the pixels under it."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from densevit.layers import resize

# Logits at full resolution that are held at a time; no fewer than those of a few rows of the grid.
_CHUNK = 1 << 21


def resized_cross_entropy(
    logits: Tensor, target: Tensor, ignore_index: int, class_weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the mean cross entropy of ``resize(logits)`` per labelled pixel, and the share of pixels it gets right.

    Both are zero if no pixel is labelled. The loss and its gradient are computed together, a few rows at a time: at
    full resolution the logits, their softmax and the gradients of both would be the largest tensors of a training.

    Args:
        logits: ``(N, K, h, w)``.
        target: ``(N, h * stride, w * stride)``, int64.
        ignore_index: Label of pixels that do not count.
        class_weights: ``(K,)``.
    """
    labelled = target != ignore_index
    target = torch.where(labelled, target, 0)
    weight = labelled.to(torch.promote_types(logits.dtype, torch.float32))
    if class_weights is not None:
        weight = weight * class_weights[target]
    loss, hits = _CrossEntropy.apply(logits, target, weight)
    return loss, hits / labelled.sum().clamp(min=1)


class _CrossEntropy(torch.autograd.Function):
    """Weighted mean of the losses and number of hits; ``target`` is a class everywhere, of weight 0 where ignored."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        height, stride = logits.shape[2], target.shape[1] // logits.shape[2]
        rows = max(4, _CHUNK * height // (target.numel() * logits.shape[1]))
        total, hits = weight.new_zeros(()), target.new_zeros(())
        grad = torch.zeros_like(logits, dtype=weight.dtype) if ctx.needs_input_grad[0] else None
        for start in range(0, height, rows):
            # A row more on either side, for the interpolation; its pixels count for nothing.
            first, last = max(start - 1, 0), min(start + rows + 1, height)
            pixels = slice(first * stride, last * stride)
            counts = weight[:, pixels].clone()
            counts[:, : (start - first) * stride] = 0
            counts[:, (start - first + rows) * stride :] = 0
            part = logits[:, :, first:last].to(weight.dtype).contiguous(memory_format=torch.channels_last)
            loss, right, slope = _cross_entropy(part, target[:, pixels], counts, grad is not None)
            total, hits = total + loss, hits + right
            if grad is not None:
                grad[:, :, first:last] += slope
        scale = weight.sum().clamp(min=torch.finfo(weight.dtype).tiny).reciprocal()
        ctx.mark_non_differentiable(hits)
        if grad is not None:
            ctx.save_for_backward(grad.mul_(scale))
        return total * scale, hits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, grad_hits: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * grad_loss, None, None


def _cross_entropy(logits: Tensor, target: Tensor, weight: Tensor, with_grad: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weighted sum of losses, the number of hits, and the gradient of ``logits`` if asked for."""
    num_classes, size = logits.shape[1], target.shape[1:]
    index, weight = target.reshape(-1, 1), weight.reshape(-1, 1)
    # Classes last, as they lie in memory: (pixels, K).
    scores = resize(logits, size).permute(0, 2, 3, 1).reshape(-1, num_classes).log_softmax(dim=1)
    chosen = scores.gather(1, index)
    hits = ((chosen >= scores.amax(dim=1, keepdim=True)) & (weight > 0)).sum()
    # Log-probabilities may be minus infinity, and zero times that is not a number.
    loss = -torch.where(weight > 0, chosen * weight, 0).sum()
    if not with_grad:
        return loss, hits, logits
    slope = scores.exp_().scatter_add_(1, index, torch.full_like(chosen, -1)).mul_(weight)
    slope = slope.view(-1, *size, num_classes).permute(0, 3, 1, 2)
    grad = torch.ops.aten.upsample_bilinear2d_backward(slope, size, logits.shape, False, None, None)
    return loss, hits, grad
