"""Convolutions of images made convolutions of clips.

Papers: https://arxiv.org/abs/1705.07750 (weights repeated in time), https://arxiv.org/abs/2103.15691, section 3.4
(the centre tap only)
"""

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn import functional as F


def inflate(weight: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a kernel of clips that sees of each only the frame at its centre.

    With an odd ``kt`` and padding ``kt // 2``, or none, a clip of equal frames then gives in every frame what the image
    gives, at any stride in time, and at the ends too, where weights that are spread over time would meet zeros.

    Args:
        weight: ``(out, in, kh, kw)``.
        shape: ``(out, in, kt, kh, kw)`` of the kernel to fill, of which ``kt`` is read.

    Returns:
        ``(out, in, kt, kh, kw)``: ``weight`` at ``kt // 2``, zeros elsewhere.
    """
    length = shape[2]
    before = length // 2
    return F.pad(weight.unsqueeze(2), (0, 0, 0, 0, before, length - 1 - before))


def inflate_all(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state`` with those kernels of images inflated whose namesakes in ``own`` have an axis more."""
    completed = dict(state)
    for key, value in state.items():
        if value.ndim == 4 and key in own and own[key].ndim == 5:
            completed[key] = inflate(value, own[key].shape)
    return completed
